"""Sample continuations of a run and their settings: the schema of the configuration node `sample`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch_linguist.data import Tokenizer
from torch_linguist.errors import require, require_positive
from torch_linguist.generation.continuing import generate
from torch_linguist.model import LanguageModel


@dataclass(frozen=True)
class SampleSettings:
    """Sample continuations during and after training.

    Attributes:
        prompts: texts to continue. An empty text starts at the beginning of a line.
        tokens: length of each continuation in tokens.
        temperature: divisor of the logits.
        top_k: number of most probable tokens to draw from; 0 for all.
        seed: random seed of the draws. The random state of the training is left untouched.
    """

    prompts: Sequence[str] = field(default_factory=lambda: ["The", "We"])
    tokens: int = 40
    temperature: float = 0.8
    top_k: int = 50
    seed: int = 1

    def __post_init__(self) -> None:
        require_positive("sample", self, "tokens", "temperature")
        require(self.top_k >= 0, f"sample.top_k={self.top_k}: must be at least 0")

    def draw(self, model: LanguageModel, tokenizer: Tokenizer) -> list[tuple[str, str]]:
        """Continue every prompt; return pairs of prompt and text."""
        options = {"max_tokens": self.tokens, "temperature": self.temperature, "top_k": self.top_k, "seed": self.seed}
        return [(prompt, generate(model, tokenizer, prompt, **options)[0]) for prompt in self.prompts]  # type: ignore[arg-type]
