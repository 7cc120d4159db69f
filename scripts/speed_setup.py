"""A training step to be timed: what is trained, and how. Imports no torch, so that a worker can set its environment.

Shape legend: B batch, T time, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Step = Callable[[], Any]


@dataclass(frozen=True)
class StepSetup:
    """A model, its batches and its optimizer.

    Attributes:
        name: name in the table.
        stock: whether to time the reference made of stock modules instead of our model.
        tuned: whether the process gets the environment variables of the commands.
        family: `lstm`, `gru`, `rnn` or `transformer`.
        size: size of embedding and hidden vectors.
        layers: number of layers.
        batch: batch size B and sequence length T.
        output: `full`, `adaptive` or `sampled`.
        precision: `fp32` or `bf16`.
        dropout: dropout of recurrent models.
        optimizer: `sgd` or `adamw`.
        heads: number of attention heads of a Transformer.
        device: `cpu` or `cuda`.
    """

    name: str
    stock: bool = False
    tuned: bool = True
    family: str = "lstm"
    size: int = 200
    layers: int = 1
    batch: tuple[int, int] = (20, 35)
    output: str = "full"
    precision: str = "fp32"
    dropout: float = 0.0
    optimizer: str = "sgd"
    heads: int = 4
    device: str = "cpu"

    @property
    def tokens(self) -> int:
        """Number of tokens per step."""
        return self.batch[0] * self.batch[1]

    def weights(self, vocab_size: int) -> int:
        """Return the number of weights in the matrix products of a token, with the full vocabulary.

        The products of attention are left out; with windows of 64 tokens they are about one percent.
        """
        gates = {"lstm": 4, "gru": 3, "rnn": 1}
        inner = gates[self.family] * 2 if self.family in gates else 12
        return inner * self.size**2 * self.layers + self.size * vocab_size
