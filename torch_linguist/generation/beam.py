"""Beam search: the continuations with the highest total probability.

Shape legend: K beams, V vocabulary.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_linguist.errors import LinguistError
from torch_linguist.generation.decoding import read_prompt
from torch_linguist.model import LanguageModel, device_of, evaluating


@dataclass(frozen=True)
class Hypothesis:
    """A continuation found by beam search.

    Attributes:
        ids: its tokens, including the stop token if it ended in one.
        log_probability: log-probability of all tokens together, in nats.
        ended: whether it ended in a stop token rather than at the limit.

    Example:
        >>> best = beam_search(model, [corpus.tokenizer.eos_id], beams=2, max_tokens=4)[0]
        >>> len(best.ids), best.ended
        (4, False)
    """

    ids: list[int]
    log_probability: float
    ended: bool


@torch.inference_mode()
def beam_search(
    model: LanguageModel,
    prompt: Sequence[int],
    *,
    beams: int,
    max_tokens: int,
    stop: Collection[int] = (),
    banned: Sequence[int] = (),
    length_penalty: float = 1.0,
) -> list[Hypothesis]:
    """Return the best continuations found by a search of limited width, the best first.

    They are ranked by log-probability / length ** length_penalty.

    Args:
        model: any model; its mode (train or eval) is restored afterwards.
        prompt: ids, at least one.
        beams: number K of continuations that are followed side by side, and the largest number returned.
        max_tokens: largest number of generated ids.
        stop: ids that end a continuation.
        banned: ids that are never generated.
        length_penalty: 0 compares whole probabilities, which favors short continuations; 1 compares means per token.

    Raises:
        LinguistError: a number or the prompt is out of range.

    Example:
        >>> best = beam_search(model, [corpus.tokenizer.eos_id], beams=3, max_tokens=4)
        >>> len(best), best[0].log_probability >= best[1].log_probability
        (3, True)
    """
    if beams < 1 or max_tokens < 1:
        raise LinguistError(f"beams={beams}, max_tokens={max_tokens}: must be at least 1")
    device = device_of(model)
    finished: list[Hypothesis] = []
    active = [Hypothesis([], 0.0, ended=False)]
    with evaluating(model):
        logits, state = read_prompt(model, prompt)
        for _ in range(max_tokens):
            rows, extended = _extend(active, logits.cpu().double(), beams, stop, banned)
            finished += [one for one in extended if one.ended]
            active = [one for one in extended if not one.ended]
            if not active:
                break
            origin = torch.tensor(rows, device=device)
            tokens = torch.tensor([[one.ids[-1]] for one in active], device=device)
            stepped, state = model(tokens, [tensor.index_select(1, origin) for tensor in state])
            logits = stepped[:, -1]
    ranked = sorted(
        [*finished, *active], key=lambda one: one.log_probability / len(one.ids) ** length_penalty, reverse=True
    )
    return ranked[:beams]


def _extend(
    active: Sequence[Hypothesis], logits: Tensor, beams: int, stop: Collection[int], banned: Sequence[int]
) -> tuple[list[int], list[Hypothesis]]:
    """Return the best one-token extensions of the active hypotheses, up to `beams` of them unfinished.

    Args:
        active: hypotheses that may go on.
        logits: logits after each, float64 [K, V].
        beams: see `beam_search`.
        stop: see `beam_search`.
        banned: see `beam_search`.

    Returns:
        For each unfinished extension the row it extends, and all extensions in descending order.
    """
    totals = torch.tensor([one.log_probability for one in active], dtype=torch.float64)
    scores = totals[:, None] + torch.log_softmax(logits, dim=-1)
    scores[:, list(banned)] = -torch.inf
    # Enough for `beams` unfinished ones even if all stop tokens are among the best.
    best = scores.flatten().topk(min(beams * (1 + len(stop)), scores.numel()))
    rows: list[int] = []
    extended: list[Hypothesis] = []
    for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        row, token = divmod(place, scores.shape[1])
        if score == -torch.inf:
            break
        ended = token in stop
        if ended or len(rows) < beams:
            extended.append(Hypothesis([*active[row].ids, token], score, ended))
            if not ended:
                rows.append(row)
    return rows, extended
