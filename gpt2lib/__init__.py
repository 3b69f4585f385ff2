"""GPT-2 from scratch, and adapters that train few of its parameters."""

from gpt2lib.config import GPT2Config
from gpt2lib.model import GPT2
from gpt2lib.optimizer import AdamW

__all__ = ["GPT2", "AdamW", "GPT2Config"]
