"""Batches of token ids from a stream: contiguous (with carried state) or independent shuffled windows.

Shape legend: B batch (parallel streams or windows), T time, N tokens of the stream.
"""

import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.data.stream import TokenStream
from torch_linguist.errors import DataError

logger = logging.getLogger("torch_linguist.data")


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)


class Batch(NamedTuple):
    """The input of a training step.

    Attributes:
        tokens: input ids, int64 [B, T].
        targets: id of the token after each input token, int64 [B, T].
        reset: whether the carried state must be reset before this batch.
        continues: whether the next batch may continue from the state after this one.

    Example:
        >>> batch = ContiguousBatches(corpus.train, batch_size=2, sequence_length=5).next()
        >>> batch.tokens.shape, bool((batch.tokens[:, 1:] == batch.targets[:, :-1]).all())
        (torch.Size([2, 5]), True)
    """

    tokens: Tensor
    targets: Tensor
    reset: bool
    continues: bool = True


class Batches(ABC):
    """Endless batches of a stream, pass after pass; its position can be saved and restored exactly.

    The stream is circular: position 0 follows the last position, which holds ``<eos>``. Every token is therefore a
    target whose input is the true preceding token. A seeded offset moves the borders of the chunks in each pass.

    Attributes:
        batch_size: number of rows per batch B; lowered if the stream holds fewer sequences.
        sequence_length: number of tokens per row T.
        batches_per_epoch: number of batches per pass.
        tokens_per_batch: number of tokens per batch, B * T.

    Example:
        >>> batches = WindowBatches(corpus.train, batch_size=2, sequence_length=5)
        >>> isinstance(batches, Batches), batches.tokens_per_batch
        (True, 10)
    """

    batches_per_epoch: int

    def __init__(self, stream: TokenStream, batch_size: int, sequence_length: int, seed: int = 0) -> None:
        """Cut the stream into batches.

        Args:
            stream: token stream of the training split.
            batch_size: number of rows per batch B.
            sequence_length: number of tokens per row T.
            seed: random seed of the offsets and the order.

        Raises:
            DataError: the stream is shorter than one sequence, or a size is not positive.
        """
        for field, value in (("batch_size", batch_size), ("sequence_length", sequence_length)):
            if value < 1:
                raise DataError(f"trainer.{field}={value}: must be at least 1")
        sequences = len(stream) // sequence_length
        if sequences == 0:
            raise DataError(
                f"trainer.sequence_length={sequence_length}: the split {stream.split} has only {len(stream)} tokens; "
                "choose a smaller trainer.sequence_length, or provide more text"
            )
        if sequences < batch_size:
            _warn_once(
                f"trainer.batch_size={batch_size} lowered to {sequences}: the split {stream.split} has only "
                f"{len(stream)} tokens, {sequences} sequences of {sequence_length}"
            )
        self.batch_size = min(batch_size, sequences)
        self.sequence_length = sequence_length
        self.tokens_per_batch = self.batch_size * sequence_length
        self._seed = seed
        # A plain array view: slicing np.memmap itself is several times slower.
        self._ids: NDArray[np.unsignedinteger] = np.asarray(stream.ids)
        self._eos_id = stream.eos_id
        self._ends_in_eos = int(self._ids[-1]) == stream.eos_id
        self._pass = 0
        self._batch = 0
        self._begin_pass()

    @property
    def epoch(self) -> float:
        """Number of completed passes over the stream, fractions included."""
        return self._pass + self._batch / self.batches_per_epoch

    def next(self) -> Batch:
        """Return the next batch."""
        batch = self._read_batch(self._batch)
        self._batch += 1
        if self._batch == self.batches_per_epoch:
            self._pass += 1
            self._batch = 0
            self._begin_pass()
        return batch

    def state_dict(self) -> dict[str, int]:
        """Return the position as plain numbers."""
        return {"pass": self._pass, "batch": self._batch, **self._layout()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore a saved position; the same batches follow as after the save.

        Raises:
            DataError: the position belongs to another stream, batch size, sequence length or seed.
        """
        for name, value in self._layout().items():
            if state.get(name) != value:
                raise DataError(
                    f"cannot resume: the saved position of the batches has {name}={state.get(name)}, this run has "
                    f"{name}={value}; resume with the settings of the saved run"
                )
        self._pass = int(state["pass"])
        self._batch = int(state["batch"])
        self._begin_pass()

    def _layout(self) -> dict[str, int]:
        return {
            "tokens": len(self._ids),
            "batch_size": self.batch_size,
            "sequence_length": self.sequence_length,
            "seed": self._seed,
        }

    def _generator(self) -> np.random.Generator:
        """Return a random generator that depends only on the seed and the pass."""
        return np.random.default_rng([self._seed, self._pass])

    def _take(self, starts: NDArray[np.int64], length: int, reset: bool) -> Batch:
        """Return rows of the circular stream: targets begin at `starts`, inputs one position earlier."""
        positions = starts[:, None] + np.arange(-1, length)
        block = self._ids.take(positions, mode="wrap").astype(np.int64)
        tokens, targets = block[:, :-1].copy(), block[:, 1:].copy()
        if not self._ends_in_eos:
            tokens[positions[:, 1:] % len(self._ids) == 0] = self._eos_id
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), reset)

    @abstractmethod
    def _begin_pass(self) -> None:
        """Draw the random layout of the current pass."""

    @abstractmethod
    def _read_batch(self, index: int) -> Batch:
        """Return batch number `index` of the current pass."""


class ContiguousBatches(Batches):
    """B parallel streams; each batch continues where the previous one ended, so that the state can be carried.

    Each pass rotates the circle by its offset and cuts it into B equal streams. A tail shorter than B is left out, a
    different one in each pass, so a pass reads each token at most once. The last batch of a pass may be shorter than T.
    The offset is smaller than one chunk, which is enough to move the borders. With a larger one, streams would begin
    with text that other streams read at the end of the previous pass, and the loss would dip there.

    Example:
        >>> batches = ContiguousBatches(corpus.train, batch_size=2, sequence_length=5)
        >>> first, second = batches.next(), batches.next()
        >>> bool((first.targets[:, -1] == second.tokens[:, 0]).all())
        True
    """

    def _begin_pass(self) -> None:
        count = len(self._ids)
        self._stream_length = count // self.batch_size
        self.batches_per_epoch = -(-self._stream_length // self.sequence_length)
        offset = int(self._generator().integers(min(count, self.sequence_length)))
        self._starts = offset + self._stream_length * np.arange(self.batch_size, dtype=np.int64)

    def _read_batch(self, index: int) -> Batch:
        begin = index * self.sequence_length
        length = min(self.sequence_length, self._stream_length - begin)
        return self._take(self._starts + begin, length, reset=index == 0)


class VariableBatches(ContiguousBatches):
    """Contiguous batches of lengths around T, which moves the borders of back-propagation (Merity et al. 2018).

    A length is drawn from a normal distribution around T, or around T / 2 with a probability of 0.05, with a standard
    deviation of 5 tokens and a minimum of 5. The lengths of a pass depend only on the seed and the pass.

    Example:
        >>> batches = VariableBatches(corpus.train, batch_size=2, sequence_length=20)
        >>> batches.next().tokens.shape[1] >= 5
        True
    """

    def _begin_pass(self) -> None:
        super()._begin_pass()
        generator = np.random.default_rng([self._seed, self._pass, 1])
        edges = [0]
        while edges[-1] < self._stream_length:
            center = self.sequence_length / (2 if generator.random() < 0.05 else 1)
            edges.append(edges[-1] + max(5, round(generator.normal(center, 5))))
        self._edges = [*edges[:-1], self._stream_length]
        self.batches_per_epoch = len(self._edges) - 1

    def _read_batch(self, index: int) -> Batch:
        begin, end = self._edges[index : index + 2]
        return self._take(self._starts + begin, end - begin, reset=index == 0)

    def _layout(self) -> dict[str, int]:
        return super()._layout() | {"variable_length": 1}


class WindowBatches(Batches):
    """Independent windows in a new order in each pass; every batch starts from the initial state.

    Each pass rotates the circle by its offset and cuts it into windows of T tokens. A tail shorter than T is left out,
    a different one in each pass, so a pass reads each token at most once. The last batch of a pass may hold fewer
    windows.

    Example:
        >>> batches = WindowBatches(corpus.train, batch_size=2, sequence_length=5, seed=1)
        >>> batches.next().reset  # Every batch starts from a fresh state.
        True
    """

    def _begin_pass(self) -> None:
        windows = len(self._ids) // self.sequence_length
        self.batches_per_epoch = -(-windows // self.batch_size)
        generator = self._generator()
        offset = int(generator.integers(len(self._ids)))
        self._starts = offset + self.sequence_length * generator.permutation(windows)

    def _read_batch(self, index: int) -> Batch:
        begin = index * self.batch_size
        windows = self._take(self._starts[begin : begin + self.batch_size], self.sequence_length, reset=True)
        return windows._replace(continues=False)
