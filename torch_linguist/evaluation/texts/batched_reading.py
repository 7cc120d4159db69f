"""Reading of many short texts at once, each as if the model read it alone.

Shape legend: B stretches read together, T time, R rows, A tokens of all rows.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.evaluation.parallel_reading import Measure
from torch_linguist.evaluation.scoring import default_stride, nll_in
from torch_linguist.model import LanguageModel, State, device_of, evaluating
from torch_linguist.model.module_modes import autocast

Ids = NDArray[np.int64]
"""Token ids of texts, one after the other [A]."""

BATCH_TOKENS = 4096
"""Tokens per batch, padding included."""

LAYER_TOKENS = 1024
"""Tokens per call of the layers before the output, whose activations then stay in a CPU's cache."""

OUTPUT_TOKENS = 16384
"""Tokens per call of the output layer, which prepares its operands at each call."""

LONGEST_STEP = 1024
"""Tokens of a row per call, for a model without a bounded context, whose state is carried on."""

GAP_STEP = 1 << 19
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
        batch_tokens: tokens per batch of a measure, padding included.
        precision: precision of the nll; see `score`.
    """

    def __init__(
        self,
        model: LanguageModel,
        eos_id: int,
        *,
        running: bool,
        batch_tokens: int = BATCH_TOKENS,
        precision: str = "fp32",
    ) -> None:
        self._model, self._eos_id, self._running = model, eos_id, running
        self._batch_tokens, self._precision = batch_tokens, precision
        self._history: Ids = np.array([eos_id], np.int64)
        self._state: State | None = None

    @torch.inference_mode()
    def read_nll(self, ids: Ids, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the nll of every token of rows in nats, float64 [A]; see `read`."""
        lengths = lengths[lengths > 0]
        if not len(lengths):
            return np.empty(0)
        with evaluating(self._model):
            if self._model.accepts_gaps:
                return self._read_long(ids) if self._running else self._read_joined(ids, lengths)
            if self._model.has_hidden and not self._running:
                return self._read_by_layers(ids, lengths)
            nll = nll_in(self._model, self._precision)

            def measure(tokens: Tensor, targets: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
                measured, new_state = nll(tokens, targets, state)
                return (measured.double(),), new_state

            (found,) = self._read_on(ids, measure) if self._running else self._read_apart(ids, lengths, measure)
        values: NDArray[np.float64] = found.numpy()
        return values

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
            return self._read_apart(ids, lengths, measure)

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

    def _read_joined(self, ids: Ids, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the nll of rows read as one row, in which a gap and `<eos>` lie before each."""
        places = np.arange(len(ids)) + np.repeat(np.arange(2, 2 * len(lengths) + 1, 2), lengths)
        joined = np.full(len(ids) + 2 * len(lengths), -1)
        joined[places] = ids
        joined[places[np.cumsum(lengths) - lengths] - 1] = self._eos_id
        self._state = None
        found: NDArray[np.float64] = self._read_steps(joined)[places - 1]
        return found

    def _read_long(self, row: Ids) -> NDArray[np.float64]:
        """Return the nll of the next stretch of the running text."""
        known = np.concatenate([self._history, row])
        self._history = known[-1:]
        return self._read_steps(known)

    def _read_steps(self, known: Ids) -> NDArray[np.float64]:
        """Return the nll of all ids but the first, for a model that takes gaps; carry the state on."""
        row, device, parts = torch.from_numpy(known)[None], device_of(self._model), []
        state = self._model.initial_state(1) if self._state is None else self._state
        for begin in range(0, len(known) - 1, GAP_STEP):
            step = row[:, begin : begin + GAP_STEP + 1].to(device)
            nll, state = self._model.nll(step[:, :-1], step[:, 1:], state)
            parts.append(nll[0].double().cpu().numpy())
        self._state = state
        return np.concatenate(parts)

    def _read_by_layers(self, ids: Ids, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the nll of rows; the output layer takes only tokens whose row no other row equals up to them."""
        inputs, stretches, first = self._shared(ids, lengths)
        nll, waiting, places = np.empty(len(ids)), [], []
        model, device = self._model, device_of(self._model)
        with autocast(device, self._precision):
            for batch in _batches(stretches, LAYER_TOKENS):
                tokens, _, measured, target = self._padded(inputs, ids, batch)
                fresh = first[target] == target
                hidden, state = [], model.initial_state(len(tokens))
                for part in torch.split(torch.from_numpy(tokens).to(device), self._longest_step, dim=1):
                    some, new_state = model.hidden(part, state)
                    hidden.append(some)
                    state = [new.to(old.dtype) for new, old in zip(new_state, state, strict=True)]
                waiting.append(torch.cat(hidden, dim=1)[torch.from_numpy(measured)][torch.from_numpy(fresh)])
                places.append(target[fresh])
                if sum(map(len, places)) >= OUTPUT_TOKENS:
                    self._write_nll(waiting, ids, places, nll)
            self._write_nll(waiting, ids, places, nll)
        return nll[first]

    def _write_nll(self, hidden: list[Tensor], ids: Ids, places: list[Ids], nll: NDArray[np.float64]) -> None:
        """Write the nll of the tokens at some places, from the hidden vectors before them; empty both lists."""
        if not places:
            return
        where = np.concatenate(places)
        targets = torch.from_numpy(ids[where])[None].to(hidden[0].device)
        nll[where] = self._model.hidden_nll(torch.cat(hidden)[None], targets)[0].double().cpu().numpy()
        hidden.clear()
        places.clear()

    def _read_apart(self, ids: Ids, lengths: NDArray[np.int64], measure: Measure) -> tuple[Tensor, ...]:
        inputs, stretches, first = self._shared(ids, lengths)
        source = torch.from_numpy(first)
        return tuple(tensor[source] for tensor in self._read_batches(inputs, ids, stretches, measure))

    def _shared(self, ids: Ids, lengths: NDArray[np.int64]) -> tuple[Ids, list[Stretch], Ids]:
        """Return the input before each token, the stretches to read, and the place whose measure each token shares."""
        ends = np.cumsum(lengths)
        begins = ends - lengths
        inputs = np.empty_like(ids)
        inputs[1:] = ids[:-1]
        inputs[begins] = self._eos_id
        context = self._model.context_length
        first = first_places(ids, begins, lengths, context or int(lengths.max()))
        new = first[ends - 1] == ends - 1
        spans = zip(begins[new].tolist(), ends[new].tolist(), lengths[new].tolist(), strict=True)
        stretches: list[Stretch] = list(spans)
        if context:
            stride = default_stride(self._model)
            stretches = [part for begin, end, size in stretches for part in _windows(begin, end, size, context, stride)]
        return inputs, stretches, first

    def _read_batches(
        self, inputs: Ids, targets: Ids, stretches: Sequence[Stretch], measure: Measure
    ) -> tuple[Tensor, ...]:
        """Measure stretches of a text [A] in batches of about equal length; return tensors [A, ...]."""
        found: tuple[Tensor, ...] = ()
        for batch in _batches(stretches, self._batch_tokens):
            tokens, wanted, measured, places = self._padded(inputs, targets, batch)
            tensors, _ = self._step_through(tokens, wanted, measure, None)
            kept, target = torch.from_numpy(measured), torch.from_numpy(places)
            found = found or tuple(tensor.new_empty((len(targets), *tensor.shape[2:])) for tensor in tensors)
            for whole, part in zip(found, tensors, strict=True):
                whole[target] = part[kept]
        return found

    def _padded(
        self, inputs: Ids, targets: Ids, batch: Sequence[Stretch]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], Ids]:
        """Return tokens and targets of a batch [B, T], whether each is measured [B, T], and the places of these."""
        begins, ends, new = (column[:, None] for column in np.array(batch, np.int64).T)
        places = begins + np.arange(int((ends - begins).max()))
        inside = places < ends
        wanted = np.where(inside, targets[np.minimum(places, len(targets) - 1)], self._eos_id)
        # Padding, too, is shifted by one, which is what counted models read fastest.
        tokens = np.concatenate([inputs[begins], wanted[:, :-1]], axis=1)
        measured = inside & (places >= ends - new)
        return tokens, wanted, measured, places[measured]

    @property
    def _longest_step(self) -> int:
        return self._model.context_length or LONGEST_STEP

    def _step_through(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], measure: Measure, state: State | None
    ) -> tuple[tuple[Tensor, ...], State]:
        device = device_of(self._model)
        tokens, wanted = torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device)
        state = self._model.initial_state(len(tokens)) if state is None else state
        step, parts = self._longest_step, []
        for some, targeted in zip(torch.split(tokens, step, dim=1), torch.split(wanted, step, dim=1), strict=True):
            tensors, state = measure(some, targeted, state)
            parts.append(tensors)
        return tuple(torch.cat(columns, dim=1).cpu() for columns in zip(*parts, strict=True)), state


def first_places(ids: Ids, begins: Ids, lengths: NDArray[np.int64], longest: int) -> Ids:
    """Return the first place with the same token after the same tokens of its row, for each token of rows [A].

    Args:
        ids: ids of all rows, one row after the other [A].
        begins: place of the first token of each row [R].
        lengths: number of tokens of each row, at least 1 [R].
        longest: number of tokens up to which rows share places; the tokens of longer rows are all places of their own.
    """
    first = np.arange(len(ids))
    rows = np.flatnonzero(lengths <= longest)
    group, step = np.zeros(len(rows), np.int64), 0
    while len(rows):
        places = begins[rows] + step
        _, index, inverse, counts = np.unique(
            group << 32 | ids[places], return_index=True, return_inverse=True, return_counts=True
        )
        first[places] = places[index[inverse]]
        step += 1
        shared = (counts[inverse] > 1) & (lengths[rows] > step)
        rows, group = rows[shared], inverse[shared]
    return first


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
