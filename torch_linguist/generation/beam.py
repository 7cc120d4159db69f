"""Beam search: the continuations that are most probable as wholes, not token by token.

Shape legend: K beams, V vocabulary.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from torch_linguist.errors import LinguistError
from torch_linguist.generation.decoding import read_prompt
from torch_linguist.model import LanguageModel, device_of


@dataclass(frozen=True)
class Hypothesis:
    """A continuation that beam search found.

    Attributes:
        ids: its tokens; the stop token, if it ended in one, comes last.
        log_probability: of all of them together, in nats.
        ended: whether it ended in a stop token rather than at the limit.
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
    """The best continuations that a search of limited width finds, the best first.

    They are ranked by log-probability / length ** length_penalty.

    Args:
        model: any model; it is left in the mode it was in.
        prompt: ids, at least one.
        beams: K, the continuations that are followed side by side, and returned at most.
        max_tokens: ids that are added at most.
        stop: ids that end a continuation.
        banned: ids that are never added.
        length_penalty: 0 compares whole probabilities, which favors short ones; 1 means per token.

    Raises:
        LinguistError: a number is out of its range, or the prompt is.
    """
    if beams < 1 or max_tokens < 1:
        raise LinguistError(f"beams={beams}, max_tokens={max_tokens}: must be at least 1")
    device, mode = device_of(model), model.training
    model.eval()
    try:
        logits, state = read_prompt(model, prompt)
        rows: list[list[int]] = [[]]
        totals = torch.zeros(1, dtype=torch.float64)
        finished: list[Hypothesis] = []
        for _ in range(max_tokens):
            scores = totals[:, None] + torch.log_softmax(logits.cpu().double(), dim=-1)
            scores[:, list(banned)] = -torch.inf
            # So many that `beams` of them go on even if all stop tokens are among the best.
            count = min(beams * (1 + len(stop)), scores.numel())
            best = scores.flatten().topk(count)
            going: list[tuple[int, int, float]] = []
            for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                row, token = divmod(place, scores.shape[1])
                if score == -torch.inf:
                    break
                if token in stop:
                    finished.append(Hypothesis([*rows[row], token], score, ended=True))
                elif len(going) < beams:
                    going.append((row, token, score))
            if not going:
                rows = []
                break
            origin = torch.tensor([row for row, _, _ in going], device=device)
            tokens = torch.tensor([[token] for _, token, _ in going], device=device)
            rows = [[*rows[row], token] for row, token, _ in going]
            totals = torch.tensor([score for _, _, score in going], dtype=torch.float64)
            stepped, state = model(tokens, [tensor.index_select(1, origin) for tensor in state])
            logits = stepped[:, -1]
    finally:
        model.train(mode)
    open_ones = [Hypothesis(row, float(total), ended=False) for row, total in zip(rows, totals, strict=False)]
    ranked = sorted(
        [*finished, *open_ones], key=lambda one: one.log_probability / len(one.ids) ** length_penalty, reverse=True
    )
    return ranked[:beams]
