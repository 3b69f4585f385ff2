"""GPT-2: embeddings, blocks, and a language-model head tied to the token embedding (Radford et al. 2019)."""

from torch import Tensor, nn

from gpt2lib.model.block import Block
from gpt2lib.model.config import GPT2Config
from gpt2lib.model.decoder import Decoder


class GPT2(Decoder):
    """Token and position embeddings, pre-norm blocks, a final norm.

    Parameters: d (vocab_size + n_positions) + n_layer (12 d^2 + 13 d) + 2 d; the output layer adds none.
    """

    config_class = GPT2Config

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.dropout = nn.Dropout(config.embd_pdrop)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.reset_parameters()

    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        return self.dropout(self.wte(input_ids) + self.wpe(position_ids))  # [batch, seq, n_embd]
