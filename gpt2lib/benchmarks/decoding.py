"""Decoding: tokens a second against transformers' generate, and against the course starter's loop."""

import torch

from gpt2lib.benchmarks.work import Work, in_turns, row
from gpt2lib.model.base import load_model

OF_STARTER = 3


@torch.no_grad()
def decoding(work: Work, prompts: int = 15, prompt_length: int = 40, new: int = 128) -> tuple[list[dict], bool]:
    """All prompts at once with a cache, against transformers' generate and the course starter's loop (one prompt at a
    time, everything computed again for every token); and whether transformers' greedy text is the same.

    The starter's loop writes the first three prompts alone: it takes them singly, so its speed is that of all.
    """
    from transformers import AutoModelForCausalLM

    ours = load_model(work.folder).to(work.device)
    theirs = AutoModelForCausalLM.from_pretrained(work.folder, dtype=torch.float32).to(work.device).eval()
    theirs.generation_config.eos_token_id = None
    torch.manual_seed(work.seed)
    ids = torch.randint(0, work.config.vocab_size, (prompts, prompt_length), device=work.device)

    def starter():
        for prompt in ids[:OF_STARTER]:
            text = prompt[None]
            for _ in range(new):
                text = torch.cat([text, ours.logits(ours(text)[:, -1]).argmax(-1, keepdim=True)], 1)

    def generate(sample: bool):
        more = dict(do_sample=True, top_p=0.9, top_k=0) if sample else dict(do_sample=False)
        return theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, pad_token_id=0, **more)

    same = torch.equal(ours.generate(ids, max_new_tokens=new, temperature=0), generate(False))
    rows = []
    for name, settings in (("sampled", dict(top_p=0.9)), ("greedy", dict(temperature=0))):
        works = {"ours": lambda s=settings: ours.generate(ids, max_new_tokens=new, **s)}
        works["transformers"] = lambda s=name == "sampled": generate(s)
        seconds = in_turns(works, work.rounds)
        rows.append(row(f"decoding, {name}", seconds, "ours", "transformers", prompts * new, "tokens/s"))
    once = in_turns({"starter": starter}, 1, warm_up=False)["starter"][0]  # takes minutes
    seconds["course starter"] = once * prompts / len(ids[:OF_STARTER])
    return [*rows, row("decoding, greedy", seconds, "ours", "course starter", prompts * new, "tokens/s")], same
