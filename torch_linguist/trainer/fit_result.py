"""What a training came to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FitResult:
    """What the training came to.

    Attributes:
        status: `finished` or `interrupted`.
        reason: why it ended, in a few words.
        steps: updates done.
        epochs: passes over the training split.
        tokens: training tokens.
        seconds: wall clock from the first update, validation included.
        tokens_per_second: over the updates alone.
        best_loss: lowest validation loss, nats per token.
        best_step: the update after which it was reached.
        checkpoint_seconds: what writing checkpoints took of them.
        compiled: whether the training step was compiled.
    """

    status: str
    reason: str
    steps: int
    epochs: float
    tokens: int
    seconds: float
    tokens_per_second: float
    best_loss: float
    best_step: int
    checkpoint_seconds: float = 0.0
    compiled: bool = False
