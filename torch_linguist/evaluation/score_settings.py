"""Settings of scoring: the schema of the configuration node `score`."""

from dataclasses import dataclass

from torch_linguist.errors import require, require_one_of, require_positive


@dataclass(frozen=True)
class ScoreSettings:
    """How a token stream is scored; see `torch_linguist.evaluation.score`.

    Attributes:
        chunk_length: tokens per chunk for a recurrent model. The result does not depend on it.
        stride: new tokens per window for a model with a bounded context; None for half the context.
        precision: precision of the matrix products: `fp32`, `bf16`, or `training` for that of the training.
        baseline_order: order of the n-gram baseline in the closing table; 0 for no baseline.
        baseline_tokens: largest training split, in tokens, that gets an n-gram baseline. Counting happens in memory.
    """

    chunk_length: int = 4096
    stride: int | None = None
    precision: str = "fp32"
    baseline_order: int = 5
    baseline_tokens: int = 20_000_000

    def __post_init__(self) -> None:
        require_positive("score", self, "chunk_length", "stride")
        require_one_of("score.precision", self.precision, ("fp32", "bf16", "training"))
        require(0 <= self.baseline_order <= 8, f"score.baseline_order={self.baseline_order}: must be from 0 to 8")
