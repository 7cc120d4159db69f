"""Stage `check`: an untrained model knows nothing, so its loss should be ln(V)."""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from torch_linguist.errors import require_positive
from torch_linguist.model import LanguageModel, device_of
from torch_linguist.pipeline.stages.stage import Stage, StageResult
from torch_linguist.runs.files import write_json
from torch_linguist.trainer.context import TrainingContext
from torch_linguist.trainer.randomness import own_randomness

if TYPE_CHECKING:
    from torch_linguist.pipeline.run_context import RunContext


@dataclass(frozen=True)
class UntrainedLoss:
    """Loss of the untrained model.

    Attributes:
        loss: mean negative log-likelihood, nats per token.
        expected: ln(V).
        tokens: number of tokens measured.
        passed: whether the two are close.
    """

    loss: float
    expected: float
    tokens: int
    passed: bool


@dataclass(frozen=True)
class Check(Stage):
    """Compares the loss of the untrained model with ln(V).

    A loss far above ln(V) means that the initial logits are too large; one far below, that a target leaks into the
    input.

    Attributes:
        batches: number of training batches to measure.
        tolerance: largest relative distance from ln(V) that passes.
    """

    name = "check"
    title = "the untrained loss against ln(vocabulary)"
    artifacts: ClassVar = {"check": "check.json"}
    for_counted = True

    batches: int = 4
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        require_positive("check", self, "batches", "tolerance")

    def measure(self, model: LanguageModel, training: TrainingContext) -> UntrainedLoss:
        """Measure the loss of an untrained model, which is left unchanged."""
        batches = training.batches(model)
        device = device_of(model)
        total, tokens = 0.0, 0
        mode = model.training
        model.eval()
        with torch.inference_mode(), own_randomness(training.seed):
            for _ in range(self.batches):
                batch = batches.next()
                state = model.initial_state(len(batch.tokens))
                nll, _ = model.nll(batch.tokens.to(device), batch.targets.to(device), state)
                total += float(nll.double().sum())
                tokens += nll.numel()
        model.train(mode)
        expected = math.log(model.vocab_size)
        loss = total / tokens
        passed = abs(loss - expected) <= self.tolerance * max(expected, 1e-9)
        return UntrainedLoss(loss=loss, expected=expected, tokens=tokens, passed=passed)

    def run(self, context: "RunContext") -> StageResult:
        measured = self.measure(context.model, context.training)
        write_json(context.folder / "check.json", asdict(measured))
        notes = []
        if not measured.passed:
            notes.append(
                f"check: the untrained loss is more than {self.tolerance:.0%} away from ln(vocabulary): "
                "the initial logits are too large, or a target leaks into the input"
            )
        verdict = f"untrained loss {measured.loss:.3f}, ln(vocabulary) {measured.expected:.3f}"
        return StageResult(verdict, asdict(measured), notes)
