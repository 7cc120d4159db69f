"""What the engine does for a request: read token ids, then perhaps go on with drawn ones.

Shape legend: T time, V vocabulary.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from torch_linguist.serve.text_completion import Piece


class Reading(Protocol):
    """A text that the engine reads token by token.

    Attributes:
        ids: token ids to read.
        done: whether there is nothing left to do.
    """

    ids: list[int]
    done: bool

    @property
    def first_row(self) -> int:
        """First position whose prediction `take_rows` needs; the last one for none."""

    @property
    def wants_prediction(self) -> bool:
        """Whether the prediction after the last token is needed."""

    @property
    def next_token(self) -> int:
        """The token to read next: the last of `ids`, then each drawn one."""

    def take_rows(self, begin: int, log_probs: Tensor) -> None:
        """Take log-probabilities [T, V] after the tokens from position `begin` on."""

    def take_prediction(self, log_probs: Tensor) -> None:
        """Take the log-probabilities [V] after `next_token`."""

    def end(self) -> None:
        """Note that nothing more is read."""

    def piece(self) -> "Piece | Tensor | None":
        """Return what is final and has not been returned yet; None if that is nothing."""


class Distributions:
    """The log-probabilities of every token after each token of a text; a `Reading`.

    Args:
        ids: token ids, the first one `<eos>`.
        begin: position of the first token whose prediction is needed.
    """

    wants_prediction = False

    def __init__(self, ids: Sequence[int], begin: int) -> None:
        # The engine reads all tokens but the last one, so this one is only a stand-in.
        self.ids, self.done, self.first_row = [*ids, ids[0]], False, begin
        self.next_token = ids[0]
        self._rows: list[Tensor] = []

    def take_rows(self, begin: int, log_probs: Tensor) -> None:
        self._rows.append(log_probs)

    def take_prediction(self, log_probs: Tensor) -> None:
        raise NotImplementedError

    def end(self) -> None:
        self.done = True

    def piece(self) -> Tensor | None:
        return torch.cat(self._rows) if self.done else None
