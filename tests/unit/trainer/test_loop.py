"""One update at a time: accumulation, clipping, the carried state."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_linguist.data import Batch
from torch_linguist.distributed.data_parallel import DataParallel
from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel
from torch_linguist.trainer import Callback, Fit, Loop, TrainingContext

ModelBuilder = Callable[..., LanguageModel]
V = 30


class FixedBatches:
    """Given batches, one after the other."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches, self.position = list(batches), 0

    @property
    def epoch(self) -> float:
        return self.position / len(self.batches)

    def next(self) -> Batch:
        self.position += 1
        return self.batches[self.position - 1]

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position = int(state["position"])


def batch(rows: int, length: int, reset: bool = True, seed: int = 0) -> Batch:
    tokens = torch.randint(V, (rows, length + 1), generator=torch.Generator().manual_seed(seed))
    return Batch(tokens[:, :-1], tokens[:, 1:], reset)


def loop_of(model: LanguageModel, batches: Sequence[Batch], lr: float = 0.5, **options: Any) -> Loop:
    return Loop(model, torch.optim.SGD(model.parameters(), lr=lr), FixedBatches(batches), **options)


@pytest.mark.parametrize("family", ["rnn", "lstm", "gru", "transformer"])
def test_accumulated_parts_make_the_update_of_the_whole(family: str, build_model: ModelBuilder) -> None:
    one, other = build_model(family, V).double(), build_model(family, V).double()
    whole = batch(6, 7)
    parts = [Batch(whole.tokens[row : row + 2], whole.targets[row : row + 2], True) for row in (0, 2, 4)]
    first, second = loop_of(one, [whole]), loop_of(other, parts, accumulate=3)
    torch.testing.assert_close(first.update(), second.update())
    assert (first.state.step, second.state.step, first.state.tokens, second.state.tokens) == (1, 1, 42, 42)
    assert first.state.update is not None
    assert second.state.update is not None
    torch.testing.assert_close(first.state.update.gradient_norm, second.state.update.gradient_norm, atol=1e-12, rtol=0)
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-12, rtol=0)


def test_parts_of_different_length_count_by_their_tokens(build_model: ModelBuilder) -> None:
    model = build_model("lstm", V).double()
    parts = [batch(2, 9), batch(2, 3, seed=1)]
    with torch.no_grad():
        nll = [model.nll(part.tokens, part.targets, model.initial_state(2))[0].sum() for part in parts]
    measured = loop_of(model, parts, accumulate=2).update()
    assert float(measured) == pytest.approx(float((nll[0] + nll[1]) / 24), rel=1e-6)


def test_clipping_bounds_the_update(build_model: ModelBuilder) -> None:
    clipped, free = build_model("gru", V).double(), build_model("gru", V).double()
    before = [parameter.detach().clone() for parameter in clipped.parameters()]
    loops = (
        loop_of(clipped, [batch(4, 5)], lr=1.0, gradient_clip=0.01),
        loop_of(free, [batch(4, 5)], lr=1.0, gradient_clip=None),
    )
    for loop in loops:
        loop.update()
    norms = [float(loop.state.update.gradient_norm) for loop in loops if loop.state.update is not None]
    assert norms[0] == pytest.approx(norms[1])
    assert norms[0] > 0.01

    def moved(model: LanguageModel) -> float:
        pairs = zip(before, model.parameters(), strict=True)
        return float(torch.stack([(new.detach() - old).square().sum() for old, new in pairs]).sum().sqrt())

    assert moved(clipped) == pytest.approx(0.01, rel=1e-4)
    assert moved(free) == pytest.approx(norms[1], rel=1e-9)


@pytest.mark.parametrize("reset", [True, False])
def test_the_state_is_carried_until_a_reset(reset: bool, build_model: ModelBuilder) -> None:
    model = build_model("lstm", V)
    first, second = batch(3, 6), batch(3, 6, reset=reset, seed=1)
    with torch.no_grad():
        state = model.nll(first.tokens, first.targets, model.initial_state(3))[1]
        state = model.initial_state(3) if reset else state
        expected = float(model.nll(second.tokens, second.targets, state)[0].mean())
        other = model.initial_state(3) if not reset else model.nll(first.tokens, first.targets, state)[1]
        mistaken = float(model.nll(second.tokens, second.targets, other)[0].mean())
    loop = loop_of(model, [first, second], lr=1e-30)
    loop.update()
    assert float(loop.update()) == pytest.approx(expected, abs=1e-6)
    assert abs(expected - mistaken) > 1e-4


def test_another_batch_size_resets_the_state(build_model: ModelBuilder) -> None:
    loop = loop_of(build_model("lstm", V), [batch(3, 6), batch(2, 6, reset=False)])
    loop.update()
    loop.update()
    assert loop.state.tokens == 30


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_bfloat16_stays_close_and_carries_float32(family: str, build_model: ModelBuilder) -> None:
    parts = [batch(3, 6), batch(3, 6, reset=False, seed=1)]
    one = build_model(family, V)
    exact, low = loop_of(build_model(family, V), parts), loop_of(one, parts, step=DataParallel(one, precision="bf16"))
    for _ in range(2):
        assert float(low.update()) == pytest.approx(float(exact.update()), abs=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in low.state_dict()["carried"])
    assert all(parameter.dtype == torch.float32 for parameter in low.model.parameters())


def test_a_state_dict_goes_on_exactly(build_model: ModelBuilder) -> None:
    parts = [batch(3, 6, reset=index == 0, seed=index) for index in range(4)]
    model = build_model("lstm", V)
    loop = loop_of(model, parts)
    for _ in range(2):
        loop.update()
    other = build_model("lstm", V)
    other.load_state_dict(model.state_dict())
    resumed = loop_of(other, parts)
    resumed.load_state_dict(loop.state_dict())
    for _ in range(2):
        assert torch.equal(loop.update(), resumed.update())
    for left, right in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


def test_smoothing_and_z_loss_are_trained_with_and_not_scored_with(
    make_context: Callable[..., TrainingContext], build_model: ModelBuilder
) -> None:
    context = make_context(label_smoothing=0.2, z_loss=0.01)
    model = build_model("lstm", context.corpus.tokenizer.vocab_size, output="full", dropout=0.0)
    first = context.batches(model).next()
    state = model.initial_state(len(first.tokens))
    plain, _ = model.nll(first.tokens, first.targets, state)
    logits = model(first.tokens, state)[0].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, first.targets.flatten(), label_smoothing=0.2)
    expected = expected + 0.01 * logits.logsumexp(1).square().mean()
    loop = context.prepare_training(model, 1e-9, 0.0)
    torch.testing.assert_close(loop.update(), expected.detach())
    model.eval()
    scored, _ = model.nll(first.tokens, first.targets, state)
    torch.testing.assert_close(scored, plain)


@pytest.mark.parametrize("field", ["label_smoothing", "z_loss"])
@pytest.mark.parametrize("output", ["adaptive", "sampled"])
def test_smoothing_needs_the_full_softmax(
    field: str, output: str, make_context: Callable[..., TrainingContext], build_model: ModelBuilder
) -> None:
    context = make_context(**{field: 0.1})
    model = build_model("gru", context.corpus.tokenizer.vocab_size, output=output, cutoffs=[2])
    with pytest.raises(ConfigError, match=rf"trainer\.{field}=0\.1.*model\.output=full"):
        context.prepare_training(model, 0.1, 0.0)


def test_the_learning_rate_follows_the_length_of_a_batch_and_resumes(
    fit_of: Callable[..., Fit], tmp_path: Path
) -> None:
    options = {"variable_length": True, "sequence_length": 12, "eval_every": 6}
    rates: dict[int, tuple[float, int]] = {}

    class Watch(Callback):
        def after_update(self, training: Fit) -> None:
            update = training.state.update
            assert update is not None
            rates[update.step] = (update.lr, update.batches[0].tokens.shape[1])

    whole = fit_of(tmp_path / "whole", callbacks=[Watch()], **options)
    whole.run()
    assert len({length for _, length in rates.values()}) > 3
    assert all(lr == pytest.approx(0.02 * length / 12) for lr, length in rates.values())
    part = fit_of(tmp_path / "part", **(options | {"max_steps": 6}))
    part.run()
    rest = fit_of(tmp_path / "part", resume=tmp_path / "part" / "checkpoints" / "last.pt", **options)
    rest.run()
    assert all(map(torch.equal, whole.model.parameters(), rest.model.parameters()))
