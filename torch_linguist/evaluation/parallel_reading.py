"""A stream whose state is carried, read at many places at once, with the result of reading it once through.

A recurrent state read token by token leaves a machine idle. But such a state forgets: wherever a reader begins, after
some thousand tokens it knows what a reader of everything knows. So a stretch of the stream is cut into segments that
are read side by side, all but the first from an empty state. Then each is read again from the state that the one
before it ended with, until its state meets that of the first reading; from there on both are the same. Where they do
not meet before the segment's end, the next segment is read once more, and so on: the result is that of one pass from
the beginning in every case, the time in the worst case twice that of one.

Shape legend: S segments, T time, N tokens.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.data import TokenStream
from torch_linguist.model import LanguageModel, State, device_of

Nll = Callable[[Tensor, Tensor, State], tuple[Tensor, State]]
"""From tokens [B, T], targets [B, T] and a state to the nll [B, T] and the new state."""

SEGMENTS = 16
"""Segments that are read side by side."""

SHORTEST = 8192
"""Tokens of a segment at least: shorter ones would end before their states meet."""

LONGEST = 1 << 16
"""Tokens of a segment at most: it bounds what is held of a long stream."""

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
"""How near two states must come to count as one, relative to the largest number in them (at least one).

In float32 that is a few dozen roundings, which is what the order of sums makes of a state too: it moves the nll of the
next tokens by so much, and that of a stream not in the first eight digits.
"""

ROUGH_TOLERANCE = 2e-2
"""The same for products in bfloat16, whose roundings are so large."""


def shifted(stream: TokenStream, start: int, end: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets [T] of positions start..end: each target's input is the token before it."""
    targets = torch.from_numpy(stream.ids[start:end].astype(np.int64))
    first = int(stream.ids[start - 1]) if start else stream.eos_id
    return torch.cat([torch.tensor([first]), targets[:-1]]), targets


def segment_count(length: int) -> int:
    """How many segments a stream of so many tokens is worth reading in; 1 where it is too short for several."""
    return max(1, min(SEGMENTS, length // SHORTEST))


# As a decorator, inference mode ends at each `yield`: whoever reads the parts computes in the mode of their own.
@torch.inference_mode()
def parallel_stream_nll(
    model: LanguageModel, stream: TokenStream, nll: Nll, length: int, chunk_length: int, rough: bool = False
) -> Iterator[NDArray[np.float64]]:
    """The nll of the first tokens of a stream, in order.

    Args:
        model: without a bounded context, in evaluation mode.
        stream: one split.
        nll: of the model.
        length: so many tokens.
        chunk_length: tokens that are read at a time, those of all segments together.
        rough: whether `nll` computes in bfloat16.

    Yields:
        nll in nats, float64, of consecutive stretches.
    """
    state = model.initial_state(1)
    count = segment_count(length)
    for begin in range(0, length, count * LONGEST):
        stretch = _Stretch(model, stream, nll, begin, min(begin + count * LONGEST, length), chunk_length, rough)
        state = stretch.read(state)
        yield stretch.nll.reshape(-1)[: stretch.length]


class _Stretch:
    """A stretch of the stream as S segments of equal length, the last one perhaps filled up with `<eos>`.

    Attributes:
        nll: [S, T].
        length: tokens of the stretch.
    """

    def __init__(
        self,
        model: LanguageModel,
        stream: TokenStream,
        nll: Nll,
        begin: int,
        end: int,
        chunk_length: int,
        rough: bool,
    ) -> None:
        self.model, self.stream, self._nll = model, stream, nll
        self.begin, self.end, self.length = begin, end, end - begin
        self.device = device_of(model)
        self.rough = rough
        count = segment_count(self.length)
        self.size = -(-self.length // count)
        self.starts = list(range(begin, end, self.size))
        self.step = max(1, chunk_length // len(self.starts))
        self.nll: NDArray[np.float64] = np.zeros((len(self.starts), self.size))
        self.passed: list[State] = []
        """After each chunk of the segments, the states [L, S, H] of the last reading."""

    def read(self, state: State) -> State:
        """Reads the stretch from a state on, and returns the state after it."""
        count = len(self.starts)
        empty = self.model.initial_state(count)
        self._first_pass([torch.cat([one, other[:, 1:]], 1) for one, other in zip(state, empty, strict=True)])
        # The first segment was read from its true state; the others are held against the ends of those before them.
        doubtful = list(range(1, count))
        while doubtful:
            unmet = self._read_again(doubtful)
            doubtful = [segment + 1 for segment in unmet if segment + 1 < count]
        # A last segment that is shorter than the others ends the stream: nobody goes on from its state.
        return [part[:, -1:] for part in self.passed[-1]]

    def _chunks(self) -> list[tuple[int, int]]:
        return [(start, min(start + self.step, self.size)) for start in range(0, self.size, self.step)]

    def _first_pass(self, state: State) -> None:
        every = list(range(len(self.starts)))
        for start, end in self._chunks():
            state = self._read_chunk(every, start, end, state)
            self.passed.append([part.clone() for part in state])

    def _read_again(self, segments: list[int]) -> list[int]:
        """Reads segments from the ends of those before them on; returns those that meet no earlier reading."""
        before = torch.tensor([segment - 1 for segment in segments], device=self.device)
        state = [part.index_select(1, before) for part in self.passed[-1]]
        for index, (start, end) in enumerate(self._chunks()):
            state = self._read_chunk(segments, start, end, state)
            rows = torch.tensor(segments, device=self.device)
            met = self._meets(state, [part.index_select(1, rows) for part in self.passed[index]])
            for part, new in zip(self.passed[index], state, strict=True):
                part.index_copy_(1, rows, new)
            kept = (~met).nonzero().squeeze(1)
            state = [part.index_select(1, kept) for part in state]
            segments = [segments[position] for position in kept.tolist()]
            if not segments:
                break
        return segments

    def _meets(self, state: State, other: State) -> Tensor:
        """Which of the rows are as good as equal, bool [S]."""
        met = torch.ones(state[0].shape[1], dtype=torch.bool, device=self.device)
        for one, two in zip(state, other, strict=True):
            apart = (one - two).abs().transpose(0, 1).flatten(1).amax(1)
            if one.dtype not in TOLERANCES:
                met &= apart == 0
                continue
            scale = two.abs().transpose(0, 1).flatten(1).amax(1).clamp(min=1.0)
            # A state that is not a number meets nothing.
            met &= apart <= (ROUGH_TOLERANCE if self.rough else TOLERANCES[one.dtype]) * scale
        return met

    def _read_chunk(self, segments: list[int], start: int, end: int, state: State) -> State:
        """Reads positions start..end of segments, from a state of them; returns the state after."""
        pairs = [self._padded(self.starts[segment] + start, self.starts[segment] + end) for segment in segments]
        tokens, targets = (torch.stack(side).to(self.device) for side in zip(*pairs, strict=True))
        nll, state = self._nll(tokens, targets, state)
        self.nll[segments, start:end] = nll.double().cpu().numpy()
        return state

    def _padded(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of positions start..end, `<eos>` from the end of the stretch on."""
        filling = torch.full((end - max(start, min(end, self.end)),), self.stream.eos_id)
        if len(filling) == end - start:
            return filling, filling
        tokens, targets = shifted(self.stream, start, end - len(filling))
        return torch.cat([tokens, filling]), torch.cat([targets, filling])
