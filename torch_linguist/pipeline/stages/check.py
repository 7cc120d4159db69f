"""Stage `check`: an untrained model should know nothing, so its loss should be ln(V)."""

import math
from dataclasses import dataclass

import torch

from torch_linguist.model import LanguageModel, device_of
from torch_linguist.trainer.context import TrainingContext
from torch_linguist.trainer.randomness import own_randomness
from torch_linguist.trainer.settings import CheckSettings


@dataclass(frozen=True)
class CheckResult:
    """Attributes:
    loss: mean nll of the untrained model in nats per token.
    expected: ln(V).
    tokens: tokens it was measured on.
    passed: whether the two are close.
    """  # noqa: D205

    loss: float
    expected: float
    tokens: int
    passed: bool


def check_untrained(model: LanguageModel, context: TrainingContext, settings: CheckSettings) -> CheckResult:
    """Measures the loss of an untrained model on a few training batches.

    A loss far above ln(V) means logits that start too large; one below it, a target that leaks into the input.

    Args:
        model: untrained; is not changed.
        context: corpus and settings.
        settings: how many batches, and the tolerance.

    Returns:
        The loss and ln(V).
    """
    batches = context.batches(model)
    device = device_of(model)
    total, tokens = 0.0, 0
    mode = model.training
    model.eval()
    with torch.inference_mode(), own_randomness(context.seed):
        for _ in range(settings.batches):
            batch = batches.next()
            state = model.initial_state(len(batch.tokens))
            nll, _ = model.nll(batch.tokens.to(device), batch.targets.to(device), state)
            total += float(nll.double().sum())
            tokens += nll.numel()
    model.train(mode)
    expected = math.log(model.vocab_size)
    loss = total / tokens
    passed = abs(loss - expected) <= settings.tolerance * max(expected, 1e-9)
    return CheckResult(loss=loss, expected=expected, tokens=tokens, passed=passed)
