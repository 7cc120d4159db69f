"""Parallel scoring of a stream by a recurrent model, with the result of one sequential pass.

Reading token by token leaves a machine idle. But a recurrent state forgets: after some thousand tokens it no longer
depends on where reading began. So a span of the stream is cut into segments that are read side by side, all but the
first from an empty state. Then each segment is read again from the final state of the one before it, until its state
equals that of the first reading; from there on both readings agree. If they do not meet before the end of the segment,
the next segment is read once more, and so on. The result always equals that of one pass; the worst case takes twice
the time.

Shape legend: S segments, T time, N tokens.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from torch_linguist.data import TokenStream
from torch_linguist.model import LanguageModel, State, device_of

Measure = Callable[[Tensor, Tensor, State], tuple[tuple[Tensor, ...], State]]
"""Maps tokens [B, T], targets [B, T] and a state to tensors [B, T, ...] and the new state."""

SEGMENTS = 16
"""Segments read side by side."""

SHORTEST = 8192
"""Minimum length of a segment, in tokens: shorter ones would end before their states meet."""

ROUGH_SHORTEST = 1024
"""The same for products in bfloat16, whose states count as equal sooner."""

LONGEST = 1 << 16
"""Maximum length of a segment, in tokens; it bounds the memory for a long stream."""

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Largest difference of two states that count as equal, relative to their largest number (at least one).

In float32 this is a few dozen roundings, about the effect of another order of summation. The nll of the next tokens
changes by as much; the first eight digits of the loss of a stream do not change.
"""

ROUGH_TOLERANCE = 2e-2
"""The same for products in bfloat16, which round more coarsely."""


def shifted(stream: TokenStream, start: int, end: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets [T] of positions start..end; the input of a target is the token before it."""
    targets = torch.from_numpy(stream.ids[start:end].astype(np.int64))
    first = int(stream.ids[start - 1]) if start else stream.eos_id
    return torch.cat([torch.tensor([first]), targets[:-1]]), targets


def segment_count(length: int, rough: bool = False) -> int:
    """Return the number of segments for a stream of `length` tokens; 1 where it is too short for several."""
    return max(1, min(SEGMENTS, length // (ROUGH_SHORTEST if rough else SHORTEST)))


# As a decorator, inference mode ends at each `yield`, so that it does not affect the caller.
@torch.inference_mode()
def parallel_measures(
    model: LanguageModel,
    stream: TokenStream,
    measure: Measure,
    length: int,
    chunk_length: int,
    rough: bool = False,
    longest: int | None = None,
) -> Iterator[tuple[Tensor, ...]]:
    """Measure the first tokens of a stream, in order.

    Args:
        model: a model without a bounded context, in eval mode.
        stream: one split.
        measure: maps tokens [B, T], targets [B, T] and a state to tensors [B, T, ...] and the new state.
        length: number of tokens to read.
        chunk_length: tokens per call, those of all segments together.
        rough: whether `measure` computes in bfloat16.
        longest: maximum length of a segment, whose measures are held at once; None for `LONGEST`.

    Yields:
        Tensors [T, ...] of consecutive spans, on the CPU.
    """
    state = model.initial_state(1)
    count = segment_count(length, rough)
    longest = longest or LONGEST
    for begin in range(0, length, count * longest):
        span = _Span(model, stream, measure, begin, min(begin + count * longest, length), chunk_length, rough)
        state = span.read(state)
        yield tuple(tensor.flatten(0, 1)[: span.length] for tensor in span.found)


class _Span:
    """A span of the stream as S segments of equal length; the last one is padded with `<eos>` if necessary.

    Attributes:
        found: measures of each token, [S, T, ...] each.
        length: tokens of the span.
    """

    def __init__(
        self,
        model: LanguageModel,
        stream: TokenStream,
        measure: Measure,
        begin: int,
        end: int,
        chunk_length: int,
        rough: bool,
    ) -> None:
        self.model, self.stream, self._measure = model, stream, measure
        self.begin, self.end, self.length = begin, end, end - begin
        self.device = device_of(model)
        self.rough = rough
        count = segment_count(self.length, rough)
        self.size = -(-self.length // count)
        self.starts = list(range(begin, end, self.size))
        self.step = max(1, chunk_length // len(self.starts))
        self.found: list[Tensor] = []
        self.passed: list[State] = []
        """States [L, S, H] of the latest reading, after each chunk of the segments."""

    def read(self, state: State) -> State:
        """Read the span from a state, and return the state after it."""
        count = len(self.starts)
        empty = self.model.initial_state(count)
        self._first_pass([torch.cat([one, other[:, 1:]], 1) for one, other in zip(state, empty, strict=True)])
        # The first segment was read from its true state; the others are checked against the end of the one before.
        doubtful = list(range(1, count))
        while doubtful:
            unmet = self._read_again(doubtful)
            doubtful = [segment + 1 for segment in unmet if segment + 1 < count]
        # A last segment with padding ends the stream, so its state is not used.
        return [part[:, -1:] for part in self.passed[-1]]

    def _chunks(self) -> list[tuple[int, int]]:
        return [(start, min(start + self.step, self.size)) for start in range(0, self.size, self.step)]

    def _first_pass(self, state: State) -> None:
        every = list(range(len(self.starts)))
        for start, end in self._chunks():
            state = self._read_chunk(every, start, end, state)
            self.passed.append([part.clone() for part in state])

    def _read_again(self, segments: list[int]) -> list[int]:
        """Read segments again from the final states of those before them; return those that never meet."""
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
        """Return which rows of two states count as equal, bool [S]."""
        met = torch.ones(state[0].shape[1], dtype=torch.bool, device=self.device)
        for one, two in zip(state, other, strict=True):
            apart = (one - two).abs().transpose(0, 1).flatten(1).amax(1)
            if one.dtype not in TOLERANCES:
                met &= apart == 0
                continue
            scale = two.abs().transpose(0, 1).flatten(1).amax(1).clamp(min=1.0)
            # NaN never counts as equal.
            met &= apart <= (ROUGH_TOLERANCE if self.rough else TOLERANCES[one.dtype]) * scale
        return met

    def _read_chunk(self, segments: list[int], start: int, end: int, state: State) -> State:
        """Read positions start..end of segments from their state, and return the state after."""
        pairs = [self._padded(self.starts[segment] + start, self.starts[segment] + end) for segment in segments]
        tokens, targets = (torch.stack(side).to(self.device) for side in zip(*pairs, strict=True))
        measures, state = self._measure(tokens, targets, state)
        if not self.found:
            whole = len(self.starts), self.size
            self.found = [one.new_zeros(*whole, *one.shape[2:], device="cpu") for one in measures]
        for kept, one in zip(self.found, measures, strict=True):
            kept[segments, start:end] = one.cpu()
        return state

    def _padded(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of positions start..end, `<eos>` beyond the end of the span."""
        filling = torch.full((end - max(start, min(end, self.end)),), self.stream.eos_id)
        if len(filling) == end - start:
            return filling, filling
        tokens, targets = shifted(self.stream, start, end - len(filling))
        return torch.cat([tokens, filling]), torch.cat([targets, filling])
