"""Reading of many short texts at once, each as if the model read it alone.

Shape legend: B stretches read together, T time, R rows, A tokens of all rows.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.evaluation.scoring import COUNTED_CHUNK, Measure, default_stride
from torch_linguist.model import LanguageModel, State, device_of, evaluating

Ids = NDArray[np.int64]
"""Token ids of texts, one after the other [A]."""

BATCH_TOKENS = 4096
"""Tokens per batch, padding included."""

LONGEST_STEP = 1024
"""Tokens of a row per call, for a model without a bounded context, whose state is carried on."""

GAP_STEP = 1 << 18
"""Tokens per call for a model that takes gaps, which reads all rows as one."""

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
        batch_tokens: tokens per batch, padding included; None chooses it for measures that need only the model's `nll`.
    """

    def __init__(self, model: LanguageModel, eos_id: int, *, running: bool, batch_tokens: int | None = None) -> None:
        self._model, self._eos_id, self._running = model, eos_id, running
        self._joins = model.accepts_gaps and batch_tokens is None
        self._batch_tokens = batch_tokens or (COUNTED_CHUNK if model.is_counted else BATCH_TOKENS)
        self._history: Ids = np.array([eos_id], np.int64)
        self._state: State | None = None

    @torch.inference_mode()
    def read(self, ids: Ids, lengths: NDArray[np.int64], measure: Measure) -> tuple[Tensor, ...]:
        """Measure every token of rows.

        Args:
            ids: ids of all rows, one row after the other [A].
            lengths: number of tokens of each row, which may be 0 [R].
            measure: see `Measure`.

        Returns:
            The tensors [A, ...] of all rows; no tensors if there are no tokens.
        """
        if not len(ids):
            return ()
        with evaluating(self._model):
            if self._running:
                return self._read_on(ids, measure)
            lengths = lengths[lengths > 0]
            return self._read_joined(ids, lengths, measure) if self._joins else self._read_apart(ids, lengths, measure)

    def _read_on(self, row: Ids, measure: Measure) -> tuple[Tensor, ...]:
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

    def _read_joined(self, ids: Ids, lengths: NDArray[np.int64], measure: Measure) -> tuple[Tensor, ...]:
        """Measure rows as one row, in which a gap and `<eos>` lie before each."""
        places = np.arange(len(ids)) + np.repeat(np.arange(2, 2 * len(lengths) + 1, 2), lengths)
        joined = np.full(len(ids) + 2 * len(lengths), -1)
        joined[places] = ids
        joined[places[np.cumsum(lengths) - lengths] - 1] = self._eos_id
        tensors, _ = self._step_through(joined[None, :-1], joined[None, 1:], measure, None, GAP_STEP)
        wanted = torch.from_numpy(places - 1)
        return tuple(tensor[0, wanted] for tensor in tensors)

    def _read_apart(self, ids: Ids, lengths: NDArray[np.int64], measure: Measure) -> tuple[Tensor, ...]:
        ends = np.cumsum(lengths)
        begins = ends - lengths
        inputs = np.empty_like(ids)
        inputs[1:] = ids[:-1]
        inputs[begins] = self._eos_id
        # Equal rows are read once: the first of them.
        spans = list(zip(begins.tolist(), ends.tolist(), lengths.tolist(), strict=True))
        first = {ids[begin:end].tobytes(): begin for begin, end, _ in reversed(spans)}
        read_at = np.array([first[ids[begin:end].tobytes()] for begin, end, _ in spans])
        stretches: list[Stretch] = list(itertools.compress(spans, read_at == begins))
        context = self._model.context_length
        if context:
            stride = default_stride(self._model)
            stretches = [part for begin, end, new in stretches for part in _windows(begin, end, new, context, stride)]
        tensors = self._read_batches(inputs, ids, stretches, measure)
        if len(first) == len(spans):
            return tensors
        source = torch.from_numpy(np.arange(len(ids)) + np.repeat(read_at - begins, lengths))
        return tuple(tensor[source] for tensor in tensors)

    def _read_batches(
        self, inputs: Ids, targets: Ids, stretches: Sequence[Stretch], measure: Measure
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
        self,
        inputs: NDArray[np.int64],
        targets: NDArray[np.int64],
        measure: Measure,
        state: State | None,
        longest_step: int = LONGEST_STEP,
    ) -> tuple[tuple[Tensor, ...], State]:
        device = device_of(self._model)
        tokens, wanted = torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device)
        state = self._model.initial_state(len(tokens)) if state is None else state
        step = tokens.shape[1] if self._model.context_length else longest_step
        parts = []
        for begin in range(0, tokens.shape[1], step):
            tensors, state = measure(tokens[:, begin : begin + step], wanted[:, begin : begin + step], state)
            parts.append(tensors)
        return tuple(torch.cat(columns, dim=1).cpu() for columns in zip(*parts, strict=True)), state


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
