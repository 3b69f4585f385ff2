"""GPT-2 and Llama from scratch, and adapters that train few of their parameters."""

from gpt2lib.model.base import load_base
from gpt2lib.model.config import GPT2Config, LlamaConfig
from gpt2lib.model.gpt2 import GPT2
from gpt2lib.model.llama import Llama
from gpt2lib.training.optimizer import AdamW
