"""Training: settings, AdamW, objectives, the loop with its checkpoints, and evaluation.

It trains whatever requires a gradient and knows no adapter; adapters bring hooks, tasks bring heads and examples.
"""

from gpt2lib.training.settings import Training, TrainingSettings
from gpt2lib.training.trainer import evaluate, fit, predict, trained_parameters

__all__ = ["Training", "TrainingSettings", "evaluate", "fit", "predict", "trained_parameters"]
