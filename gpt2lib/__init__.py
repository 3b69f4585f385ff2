"""GPT-2 from scratch, and adapters that train few of its parameters."""

from gpt2lib.model.config import GPT2Config
from gpt2lib.model.gpt2 import GPT2
from gpt2lib.training.optimizer import AdamW

__all__ = ["GPT2", "AdamW", "GPT2Config"]
