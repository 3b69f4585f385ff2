"""What a user would otherwise run: transformers' model as a classifier, with peft's LoRA or whole."""

import random
from collections.abc import Callable

import torch
from torch.nn.utils.rnn import pad_sequence

from gpt2lib.adapters import LoRA
from gpt2lib.benchmarks.work import CLASSES, Work
from gpt2lib.common.machine import autocast
from gpt2lib.data.batches import Encoded


def their_model(work: Work):
    """transformers' classifier of this shape, with these weights."""
    from transformers import AutoModelForSequenceClassification

    # float32 as ours: weights that were saved in half precision would stay in it, which a CPU is slow at
    given = dict(num_labels=CLASSES, pad_token_id=0, dtype=torch.float32)
    return AutoModelForSequenceClassification.from_pretrained(work.folder, **given)


def their_targets(work: Work, lora: LoRA) -> list[str]:
    """peft's names of the layers; of GPT-2's attention its default, the fused query, key and value."""
    return ["c_attn"] if work.config.family == "gpt2" else [f"{target}_proj" for target in lora.targets]


class Peer:
    """The model, and a loop's one step: a batch padded to its longest, torch's AdamW, gradients clipped."""

    def __init__(self, work: Work, lora: LoRA | None):
        torch.manual_seed(work.seed)
        model = their_model(work)
        if lora is not None:
            import peft

            config = peft.LoraConfig(
                r=lora.rank,
                lora_alpha=lora.alpha,
                target_modules=their_targets(work, lora),
                layers_to_transform=None if lora.layers is None else list(range(*lora.layers)),
                fan_in_fan_out=work.config.family == "gpt2",
                task_type="SEQ_CLS",
            )
            model = peft.get_peft_model(model, config)
        self.work, self.model = work, model.to(work.device)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, weight_decay=0.0)

    def step(self, chosen: list[Encoded], lr: float | None = None) -> None:
        if lr is not None:
            self.optimizer.param_groups[0]["lr"] = lr
        self.model.train()
        with autocast(self.work.device, self.work.precision):
            loss = self.model(**self._padded(chosen)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def accuracy(self, examples: list[Encoded], batch_size: int = 32) -> float:
        self.model.eval()
        correct = 0
        for i in range(0, len(examples), batch_size):
            batch = self._padded(examples[i : i + batch_size])
            correct += int((self.model(**batch).logits.argmax(-1) == batch["labels"]).sum())
        return correct / len(examples)

    def _padded(self, chosen: list[Encoded]) -> dict[str, torch.Tensor]:
        ids = pad_sequence([torch.tensor(e.ids) for e in chosen], batch_first=True)
        mask = pad_sequence([torch.ones(len(e.ids), dtype=torch.long) for e in chosen], batch_first=True)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([e.label for e in chosen])}
        return {name: tensor.to(self.work.device) for name, tensor in batch.items()}


def their_steps(work: Work, lora: LoRA | None) -> Callable[[], None]:
    """A round's updates on batches drawn at random."""
    peer, rng = Peer(work, lora), random.Random(work.seed)
    return lambda: [peer.step(rng.sample(work.examples, work.batch_size)) for _ in range(work.steps)]
