"""What may happen between the steps of a training run: the interface that methods with a schedule of their own use."""

from torch import nn


class Hook:
    """Something that `training.fit` calls before every step, for what one optimiser and one loss do not cover.

    run, which `before_step` gets, has `progress`, `settings`, `model`, `train`, `batch(examples)`, and
    `gradients(examples)`, which fills .grad and returns the loss. Whatever the hook does must follow from these, its
    own state and the step's number, so that a resumed run repeats it.
    """

    def parameters(self) -> list[nn.Parameter]:
        """Those that the hook updates itself; fit's own optimiser leaves them alone."""
        return []

    def before_step(self, run) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass
