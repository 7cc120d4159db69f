"""Reading of many short texts at once, each as if the model read it alone.

Shape legend: B rows read together, T time, N tokens of a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.evaluation.scoring import Measure, default_stride
from torch_linguist.model import LanguageModel, State, device_of, evaluating

Row = NDArray[np.int64]
"""Token ids of one text [N]."""

BATCH_TOKENS = 4096
"""Tokens per batch, padding included."""

LONGEST_STEP = 1024
"""Tokens of a row per call, for a model without a bounded context, whose state is carried on."""


@dataclass(frozen=True, eq=False)
class _Stretch:
    """A part of a row that is read from an initial state.

    Attributes:
        row: index of the row.
        inputs: ids to read [T].
        targets: id that follows each input [T].
        new: number of last positions that are measured; the others are context.
    """

    row: int
    inputs: Row
    targets: Row
    new: int


class RowReader:
    """Reads rows of token ids, each by itself or as one running text.

    Each row by itself is predicted from `<eos>` on. As a running text, a row is predicted from the rows before it: a
    model without a bounded context carries its state on, one with a bounded context sees the last tokens.

    Args:
        model: any model; its mode (train or eval) is preserved.
        eos_id: id from which the first token of a text is predicted.
        running: whether the rows are one running text.
        batch_tokens: tokens per batch, padding included.
    """

    def __init__(self, model: LanguageModel, eos_id: int, *, running: bool, batch_tokens: int) -> None:
        self._model, self._eos_id, self._running, self._batch_tokens = model, eos_id, running, batch_tokens
        self._history: Row = np.array([eos_id], np.int64)
        self._state: State | None = None

    @torch.inference_mode()
    def read(self, rows: Sequence[Row], measure: Measure) -> list[tuple[Tensor, ...]]:
        """Measure every token of rows of ids [N], which may be empty; return the tensors [N, ...] of each row."""
        with evaluating(self._model):
            if not self._running:
                return self._read_stretches(rows, measure)
            whole = np.concatenate([*rows, np.empty(0, np.int64)])
            if not len(whole):
                return [() for _ in rows]
            measured = self._read_on(whole, measure)
            lengths = [len(row) for row in rows]
            parts = [torch.split(tensor, lengths) for tensor in measured]
            return [tuple(part[index] for part in parts) for index in range(len(rows))]

    def _read_on(self, row: Row, measure: Measure) -> tuple[Tensor, ...]:
        """Measure the next stretch of the running text."""
        context = self._model.context_length
        known = np.concatenate([self._history, row])
        if context:
            parts = list(_windows(0, known, len(row), context, default_stride(self._model)))
            (measured,) = self._read_batches(parts, 1, measure)
            self._history = known[-context:]
            return measured
        self._history = known[-1:]
        inputs, targets = known[:-1], known[1:]
        tensors, self._state = self._step_through(inputs[None], targets[None], measure, self._state)
        return tuple(tensor[0] for tensor in tensors)

    def _read_stretches(self, rows: Sequence[Row], measure: Measure) -> list[tuple[Tensor, ...]]:
        start, context = np.array([self._eos_id], np.int64), self._model.context_length
        stretches: list[_Stretch] = []
        for index, row in enumerate(rows):
            if not len(row):
                continue
            known = np.concatenate([start, row])
            if context:
                stretches += _windows(index, known, len(row), context, default_stride(self._model))
            else:
                stretches.append(_Stretch(index, known[:-1], row, len(row)))
        return self._read_batches(stretches, len(rows), measure)

    def _read_batches(self, stretches: Sequence[_Stretch], rows: int, measure: Measure) -> list[tuple[Tensor, ...]]:
        """Measure stretches in batches of about equal length, and put those of a row together again."""
        order = sorted(range(len(stretches)), key=lambda index: len(stretches[index].inputs))
        measured: dict[int, tuple[Tensor, ...]] = {}
        for batch in _batches(order, stretches, self._batch_tokens):
            time = len(stretches[batch[-1]].inputs)
            inputs, targets = (np.full((len(batch), time), self._eos_id, np.int64) for _ in range(2))
            for place, index in enumerate(batch):
                inputs[place, : len(stretches[index].inputs)] = stretches[index].inputs
                targets[place, : len(stretches[index].targets)] = stretches[index].targets
            tensors, _ = self._step_through(inputs, targets, measure, None)
            for place, index in enumerate(batch):
                end = len(stretches[index].inputs)
                measured[index] = tuple(tensor[place, end - stretches[index].new : end] for tensor in tensors)
        found: list[list[tuple[Tensor, ...]]] = [[] for _ in range(rows)]
        for index, stretch in enumerate(stretches):
            found[stretch.row].append(measured[index])
        return [tuple(torch.cat(parts) for parts in zip(*pieces, strict=True)) for pieces in found]

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


def _windows(row: int, known: Row, new: int, context: int, stride: int) -> Iterator[_Stretch]:
    """Overlapping windows over the last `new` tokens of a row, of which the ones before are context.

    The first window measures all that fits; each later one ends at most `stride` tokens further, as in the scores of a
    split, so that a token sees at least `context - stride` tokens before it.
    """
    total = len(known) - 1
    end = min(total, max(context, total - new + stride)) if total > context else total
    done = total - new
    while done < total:
        begin = max(0, end - context)
        yield _Stretch(row, known[begin:end], known[begin + 1 : end + 1], end - done)
        done, end = end, min(end + stride, total)


def _batches(order: Sequence[int], stretches: Sequence[_Stretch], batch_tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * len(stretches[index].inputs) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
