"""The compiled training step: the numbers of the plain one, and a training without it where compiling fails."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel
from torch_linguist.trainer import Callback, Fit, TrainerSettings, TrainingContext
from torch_linguist.trainer.compilation import compiled_step, is_worth_compiling

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]


class Notes(Callback):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def noted(self, message: str) -> None:
        self.lines.append(message)


def gradients(model: LanguageModel, nll: Callable[..., tuple[torch.Tensor, list[torch.Tensor]]], rows: int) -> list:  # type: ignore[type-arg]
    """Loss, state and gradients of one batch."""
    tokens = torch.randint(50, (rows, 9), generator=torch.Generator().manual_seed(rows))
    model.zero_grad()
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    loss, state = nll(inputs, targets, model.initial_state(rows))
    loss.sum().backward()  # type: ignore[no-untyped-call]
    return [loss.detach(), *(tensor.detach() for tensor in state), *(weight.grad for weight in model.parameters())]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("family", ["transformer", "lstm"])
def test_compiled_and_plain_steps_agree(family: str, build_model: ModelBuilder, make_context: ContextBuilder) -> None:
    torch._dynamo.reset()
    statistics = torch._dynamo.utils.counters["stats"]
    before = statistics["unique_graphs"]
    notes, model = Notes(), build_model(family, 50, num_layers=1)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    step = compiled_step(model, make_context(compile=True), notes)
    assert torch.equal(torch.get_rng_state(), random)
    assert not model.training
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert len(notes.lines) == 1
    if family == "lstm":  # Its fused kernel is nothing that the compiler takes.
        assert step is None
        assert "continues uncompiled" in notes.lines[0]
        return
    assert step is not None
    assert step.compiled
    model.train()
    for rows in (4, 3, 2):
        torch.testing.assert_close(
            gradients(model, step, rows), gradients(model, model.nll, rows), rtol=1e-4, atol=1e-5
        )
    assert statistics["unique_graphs"] - before <= 2, "the second shape is compiled for all others"
    assert (step.compiled, len(notes.lines)) == (True, 1)


@pytest.mark.parametrize("compiler", ["missing", "failing"])
def test_without_a_compiler_a_training_is_the_plain_one(
    compiler: str,
    build_model: ModelBuilder,
    make_context: ContextBuilder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    notes, compiled = Notes(), build_model("transformer", 50, num_layers=1)
    command = "/nowhere/g++" if compiler == "missing" else "/bin/false"
    # What an earlier process has compiled must not be found.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    with inductor.patch({"force_disable_caches": True, "cpp.cxx": (None, command)}):
        result = Fit(compiled, make_context(compile=True), 0.01, 0.0, tmp_path, [notes]).run()
    torch._dynamo.reset()
    assert not result.compiled
    assert len([line for line in notes.lines if "trainer.compile" in line]) == 1
    plain = build_model("transformer", 50, num_layers=1)
    (tmp_path / "plain").mkdir()
    Fit(plain, make_context(compile=False), 0.01, 0.0, tmp_path / "plain").run()
    assert all(torch.equal(one, other) for one, other in zip(compiled.parameters(), plain.parameters(), strict=True))


def test_auto_compiles_nothing_on_a_cpu(build_model: ModelBuilder) -> None:
    for family, on_cuda in (("transformer", True), ("lstm", False)):
        model = build_model(family)
        assert not is_worth_compiling(model, torch.device("cpu"), None)
        assert not is_worth_compiling(model, torch.device("cuda"), 1.5)
        assert is_worth_compiling(model, torch.device("cuda"), None) is on_cuda
        assert is_worth_compiling(model, torch.device("cuda"), 10.0) is on_cuda


def test_another_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.compile=yes"):
        TrainerSettings(max_steps=1, compile="yes")  # type: ignore[arg-type]
