"""The compiled training step: the numbers of the plain one, and a training without it where compiling fails."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch

from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel
from torch_linguist.trainer import Callback, Fit, TrainerSettings, TrainingContext
from torch_linguist.trainer.compilation import compiled_step, is_worth_compiling

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]


def needs_compiler(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a slow test that compiles."""
    skip = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
    return cast(Callable[..., None], pytest.mark.slow(skip(test)))


class Notes(Callback):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def noted(self, message: str) -> None:
        self.lines.append(message)


def gradients(model: LanguageModel, nll: Callable[..., torch.Tensor], rows: int) -> list[torch.Tensor | None]:
    """Loss and gradients of one batch."""
    tokens = torch.randint(50, (rows, 9), generator=torch.Generator().manual_seed(rows))
    model.zero_grad()
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    loss = nll(inputs, targets)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    return [loss.detach(), *(weight.grad for weight in model.parameters())]


@needs_compiler
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
    assert len(notes.lines) == 2
    if family == "lstm":  # Its fused kernel is nothing that the compiler takes.
        assert step is None
        assert "continues uncompiled" in notes.lines[1]
        return
    assert step is not None
    assert step.compiled
    model.train()
    for rows in (4, 3, 2):
        torch.testing.assert_close(
            gradients(model, step.window_nll, rows), gradients(model, model.window_nll, rows), rtol=1e-4, atol=1e-5
        )
    assert statistics["unique_graphs"] - before <= 2, "the second shape is compiled for all others"
    assert (step.compiled, len(notes.lines)) == (True, 2)
    tokens = torch.randint(50, (2, 8))
    carried = model.nll(tokens, tokens, model.initial_state(2))[1]
    for one, other in zip(step(tokens, tokens, carried), model.nll(tokens, tokens, carried), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_compiled_code_drops_what_the_plain_model_drops(
    build_model: ModelBuilder, make_context: ContextBuilder
) -> None:
    torch._dynamo.reset()
    model = build_model("transformer", 50, num_layers=2, dropout=0.5, query_key_norm=True, value_embeddings=True)
    step = compiled_step(model, make_context(compile=True, precision="bf16"), Notes())
    assert step is not None
    model.train()

    def seeded(nll: Callable[..., torch.Tensor], seed: int) -> list[torch.Tensor | None]:
        torch.manual_seed(seed)
        with torch.autocast("cpu", torch.bfloat16):
            return gradients(model, nll, 4)

    compiled, plain, other = seeded(step.window_nll, 1), seeded(model.window_nll, 1), seeded(model.window_nll, 2)
    for one, two, different in zip(compiled, plain, other, strict=True):
        assert one is not None
        assert two is not None
        assert different is not None
        if two.dim() > 1:
            assert float((one - two).norm()) < 0.2 * float((different - two).norm())


@needs_compiler
def test_a_compiled_training_is_the_plain_one(
    build_model: ModelBuilder, make_context: ContextBuilder, tmp_path: Path
) -> None:
    torch._dynamo.reset()
    trained = []
    for compiled in (True, False):
        model = build_model("transformer", 50, num_layers=1, dropout=0.3, output="sampled")
        folder = tmp_path / str(compiled)
        folder.mkdir()
        context = make_context(compile=compiled, precision="fp32")
        assert Fit(model, context, 0.01, 0.0, folder).run().compiled is compiled
        trained.append(model.state_dict())
    torch.testing.assert_close(*trained, rtol=1e-3, atol=1e-5)


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
    assert len([line for line in notes.lines if "trainer.compile" in line]) == 2
    plain = build_model("transformer", 50, num_layers=1)
    (tmp_path / "plain").mkdir()
    Fit(plain, make_context(compile=False), 0.01, 0.0, tmp_path / "plain").run()
    assert all(torch.equal(one, other) for one, other in zip(compiled.parameters(), plain.parameters(), strict=True))


def test_auto_compiles_long_trainings_of_a_bounded_context(build_model: ModelBuilder) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for family, compiles in (("transformer", True), ("lstm", False)):
        model = build_model(family)
        for device, precision, minutes, expected in (
            (cuda, "bf16", None, True),
            (cuda, "fp32", 10.0, True),
            (cuda, "bf16", 1.5, False),
            (cpu, "bf16", 10.0, True),
            (cpu, "bf16", None, False),
            (cpu, "bf16", 4.0, False),
            (cpu, "fp32", 60.0, False),
        ):
            assert is_worth_compiling(model, device, precision, minutes) is (compiles and expected)


def test_another_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.compile=yes"):
        TrainerSettings(max_steps=1, compile="yes")  # type: ignore[arg-type]
