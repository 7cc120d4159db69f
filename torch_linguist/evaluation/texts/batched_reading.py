"""Reading of many short texts at once, each as if the model read it alone.

Shape legend: B stretches read together, T time, N tokens of a row, A tokens of all rows.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.evaluation.scoring import COUNTED_CHUNK, Measure, default_stride
from torch_linguist.model import LanguageModel, State, device_of, evaluating

Row = NDArray[np.int64]
"""Token ids of one text [N]."""

BATCH_TOKENS = 4096
"""Tokens per batch, padding included."""

LONGEST_STEP = 1024
"""Tokens of a row per call, for a model without a bounded context, whose state is carried on."""

Stretch = tuple[int, int, int]
"""A part of the text that is read from an initial state: its begin and end, and the number of last positions that are
measured. The positions before these are context."""


class RowReader:
    """Reads rows of token ids, each by itself or as one running text.

    Each row by itself is predicted from `<eos>` on. As a running text, a row is predicted from the rows before it: a
    model without a bounded context carries its state on, one with a bounded context sees the last tokens.

    Args:
        model: any model; its mode (train or eval) is preserved.
        eos_id: id from which the first token of a text is predicted.
        running: whether the rows are one running text.
        batch_tokens: tokens per batch, padding included; None chooses it for the `nll` of a model.
    """

    def __init__(self, model: LanguageModel, eos_id: int, *, running: bool, batch_tokens: int | None = None) -> None:
        self._model, self._eos_id, self._running = model, eos_id, running
        self._batch_tokens = batch_tokens or (COUNTED_CHUNK if model.is_counted else BATCH_TOKENS)
        self._history: Row = np.array([eos_id], np.int64)
        self._state: State | None = None

    @torch.inference_mode()
    def read(self, rows: Sequence[Row], measure: Measure) -> tuple[Tensor, ...]:
        """Measure every token of rows of ids [N], which may be empty.

        Returns:
            The tensors [A, ...] of all rows, one row after the other; no tensors if there are no tokens.
        """
        whole = np.concatenate([*rows, np.empty(0, np.int64)])
        if not len(whole):
            return ()
        with evaluating(self._model):
            return self._read_on(whole, measure) if self._running else self._read_apart(rows, whole, measure)

    def _read_on(self, row: Row, measure: Measure) -> tuple[Tensor, ...]:
        """Measure the next stretch of the running text."""
        context = self._model.context_length
        known = np.concatenate([self._history, row])
        inputs, targets = known[:-1], known[1:]
        if context:
            stretches = list(_windows(0, len(inputs), len(row), context, default_stride(self._model)))
            self._history = known[-context:]
            return tuple(part[-len(row) :] for part in self._read_batches(inputs, targets, stretches, measure))
        self._history = known[-1:]
        tensors, self._state = self._step_through(inputs[None], targets[None], measure, self._state)
        return tuple(tensor[0] for tensor in tensors)

    def _read_apart(self, rows: Sequence[Row], whole: Row, measure: Measure) -> tuple[Tensor, ...]:
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        lengths = lengths[lengths > 0]
        ends = np.cumsum(lengths)
        begins = ends - lengths
        inputs = np.empty_like(whole)
        inputs[1:] = whole[:-1]
        inputs[begins] = self._eos_id
        context = self._model.context_length
        spans = zip(begins.tolist(), ends.tolist(), lengths.tolist(), strict=True)
        stretches: list[Stretch] = list(spans)
        if context:
            stride = default_stride(self._model)
            stretches = [part for begin, end, new in stretches for part in _windows(begin, end, new, context, stride)]
        return self._read_batches(inputs, whole, stretches, measure)

    def _read_batches(
        self, inputs: Row, targets: Row, stretches: Sequence[Stretch], measure: Measure
    ) -> tuple[Tensor, ...]:
        """Measure stretches of a text [A] in batches of about equal length; return tensors [A, ...]."""
        found: tuple[Tensor, ...] = ()
        for batch in _batches(stretches, self._batch_tokens):
            begins, ends, new = (column[:, None] for column in np.array(batch, np.int64).T)
            places = begins + np.arange(int((ends - begins).max()))
            inside = places < ends
            wanted = np.where(inside, targets[np.minimum(places, len(targets) - 1)], self._eos_id)
            # Padding, too, is shifted by one, which is what counted models read fastest.
            tokens = np.concatenate([inputs[begins], wanted[:, :-1]], axis=1)
            tensors, _ = self._step_through(tokens, wanted, measure, None)
            measured = inside & (places >= ends - new)
            kept, target = torch.from_numpy(measured), torch.from_numpy(places[measured])
            found = found or tuple(tensor.new_empty((len(targets), *tensor.shape[2:])) for tensor in tensors)
            for whole, part in zip(found, tensors, strict=True):
                whole[target] = part[kept]
        return found

    def _step_through(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], measure: Measure, state: State | None
    ) -> tuple[tuple[Tensor, ...], State]:
        device = device_of(self._model)
        tokens, wanted = torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device)
        state = self._model.initial_state(len(tokens)) if state is None else state
        step = tokens.shape[1] if self._model.context_length else LONGEST_STEP
        parts = []
        for begin in range(0, tokens.shape[1], step):
            tensors, state = measure(tokens[:, begin : begin + step], wanted[:, begin : begin + step], state)
            parts.append(tensors)
        return tuple(torch.cat(columns, dim=1).cpu() for columns in zip(*parts, strict=True)), state


def split_rows(tensors: Sequence[Tensor], rows: Sequence[Row]) -> list[tuple[Tensor, ...]]:
    """Split the result of `RowReader.read` into the tensors [N, ...] of each row."""
    parts = [torch.split(tensor, list(map(len, rows))) for tensor in tensors]
    return [tuple(part[place] for part in parts) for place in range(len(rows))]


def _windows(begin: int, end: int, new: int, context: int, stride: int) -> Iterator[Stretch]:
    """Overlapping windows over the last `new` tokens of a text, of which the ones before are context.

    The first window measures all that fits; each later one ends at most `stride` tokens further, as in the scores of a
    split, so that a token sees at least `context - stride` tokens before it.
    """
    done = end - new
    last = min(end, max(begin + context, done + stride))
    while done < end:
        yield max(begin, last - context), last, last - done
        done, last = last, min(last + stride, end)


def _batches(stretches: Sequence[Stretch], batch_tokens: int) -> Iterator[list[Stretch]]:
    batch: list[Stretch] = []
    for stretch in sorted(stretches, key=lambda stretch: stretch[1] - stretch[0]):
        if batch and (len(batch) + 1) * (stretch[1] - stretch[0]) > batch_tokens:
            yield batch
            batch = []
        batch.append(stretch)
    if batch:
        yield batch
