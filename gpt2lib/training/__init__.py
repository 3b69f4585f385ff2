"""Training: settings, AdamW, objectives, the loop with its checkpoints, the frozen prefix, and evaluation.

It trains whatever requires a gradient and knows no kind of adapter: an attached one brings its hooks, tasks bring heads
and examples.
"""

from gpt2lib.training.evaluate import evaluate, predict
from gpt2lib.training.objectives import trained_parameters
from gpt2lib.training.settings import TrainingSettings
from gpt2lib.training.trainer import Trainer, fit
