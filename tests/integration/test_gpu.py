"""What only a GPU can show; `pytest -m gpu -n 0` on a machine with CUDA. Elsewhere every test here is skipped."""

import copy
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import write_tale
from torch.nn.attention import SDPBackend, sdpa_kernel

from torch_linguist.checkpoint import load_model, read_checkpoint
from torch_linguist.cli import analyze, generate, score, train
from torch_linguist.cli import eval as scoring
from torch_linguist.model import LanguageModel
from torch_linguist.runs.devices import choose_device
from torch_linguist.trainer import Fit, FitResult, TrainingContext
from torch_linguist.trainer.device import step_agrees

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]
FAMILIES = ["rnn", "gru", "lstm", "transformer"]
CUDA = torch.device("cuda")
ROOT = Path(__file__).resolve().parents[2]
SMALL = ["experiment=debug", "data=text", "data.path=tale.txt", "model.embedding_dim=16", "model.hidden_size=16"]
SMALL += ["model.output=full", "optim.lr=0.01", "optim.weight_decay=0"]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.xdist_group("gpu"),
]


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """Float32 products without TF32, which rounds to ten bits, so that the CPU's numbers are the measure."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_tale(tmp_path))
    return tmp_path


@pytest.fixture
def fit(make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path) -> Callable[..., FitResult]:
    """`fit(name, family, **settings)`: sixty updates on the GPU, in a folder of that name."""

    def make(name: str, family: str, resume: Path | None = None, dropout: float = 0.0, **settings: Any) -> FitResult:
        chosen = {"max_steps": 60, "eval_every": 20, "log_every": 10, "eval_tokens": 200, "device": "cuda"} | settings
        context = make_context(**chosen)
        model = build_model(family, context.corpus.tokenizer.vocab_size, dropout=dropout).to(context.settings.device)
        (tmp_path / name).mkdir()
        return Fit(model, context, 0.03, 0.01, tmp_path / name, resume=resume).run()

    return make


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]


@pytest.mark.parametrize(
    "output", [{"output": "full"}, {"output": "adaptive"}, {"output": "sampled"}, {"num_softmaxes": 3}], ids=str
)
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_those_of_the_cpu(
    family: str, output: dict[str, Any], build_model: ModelBuilder
) -> None:
    model = build_model(family, vocab_size=120, **output)
    model.prepare_vocabulary(torch.arange(120, 0, -1))
    assert step_agrees(model, CUDA)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_is_that_of_the_cpu(family: str, fit: Callable[..., FitResult], tmp_path: Path) -> None:
    fit("gpu", family)
    fit("cpu", family, device="cpu")
    found, expected = losses(tmp_path / "gpu"), losses(tmp_path / "cpu")
    # At this learning rate, a Transformer magnifies differences in the last bits from update to update.
    compared = 4 if family == "transformer" else len(expected)
    assert found[:compared] == pytest.approx(expected[:compared], abs=1e-3)


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.02)])
@pytest.mark.parametrize("family", FAMILIES)
def test_short_floats_are_close(
    family: str, precision: torch.dtype, tolerance: float, build_model: ModelBuilder
) -> None:
    model = build_model(family).to(CUDA)
    tokens = torch.randint(50, (4, 33), generator=torch.Generator().manual_seed(1)).to(CUDA)
    plain, _ = model.nll(tokens[:, :-1], tokens[:, 1:], model.initial_state(4))
    with torch.autocast("cuda", dtype=precision):
        short, _ = model.nll(tokens[:, :-1], tokens[:, 1:], model.initial_state(4))
    assert short.dtype == torch.float32
    torch.testing.assert_close(short, plain, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", ["rnn", "gru", "lstm"])
def test_small_gradients_are_not_rounded_to_zero(family: str, build_model: ModelBuilder) -> None:
    model = build_model(family).to(CUDA).train()
    tokens = torch.randint(50, (4, 33), generator=torch.Generator().manual_seed(1)).to(CUDA)
    found = []
    for factor in (1.0, 2.0**-12):  # As much smaller as in the mean over a batch of half a million tokens.
        with torch.autocast("cuda", dtype=torch.bfloat16):
            nll, _ = model.nll(tokens[:, :-1], tokens[:, 1:], model.initial_state(4))
        weights = list(model.parameters())
        found.append([gradient / factor for gradient in torch.autograd.grad(nll.mean() * factor, weights)])
    for plain, small in zip(*found, strict=True):
        assert float((small - plain).norm()) <= 0.02 * float(plain.norm())


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_bfloat16_learns_as_well(family: str, fit: Callable[..., FitResult]) -> None:
    short, long = fit("short", family, precision="bf16"), fit("long", family)
    assert short.best_loss == pytest.approx(long.best_loss, abs=0.5)


def test_flash_attention_computes_the_same(build_model: ModelBuilder) -> None:
    model = build_model("transformer").to(CUDA)
    tokens = torch.randint(50, (4, 9), generator=torch.Generator().manual_seed(1)).to(CUDA)
    found = []
    for kernel in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        model.zero_grad()
        # A kernel that does not fit the call is an error here, so that flash attention is known to have been used.
        with sdpa_kernel(kernel), torch.autocast("cuda", dtype=torch.bfloat16):
            nll, _ = model.nll(tokens[:, :-1], tokens[:, 1:], model.initial_state(4))
        nll.mean().backward()  # type: ignore[no-untyped-call]
        found.append([nll.detach(), *(weight.grad for weight in model.parameters() if weight.grad is not None)])
    for flash, plain in zip(*found, strict=True):
        torch.testing.assert_close(flash, plain, rtol=0, atol=0.05)


def test_the_compiled_step_trains_the_same(fit: Callable[..., FitResult], tmp_path: Path) -> None:
    fit("compiled", "transformer", compile=True)
    fit("plain", "transformer", compile=False)
    # Sums in another order; the difference grows from update to update.
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), abs=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_resumed_training_ends_the_same(family: str, fit: Callable[..., FitResult], tmp_path: Path) -> None:
    fit("whole", family, dropout=0.2)
    fit("part", family, dropout=0.2, max_steps=40)
    fit("rest", family, dropout=0.2, resume=tmp_path / "part/checkpoints/last.pt")
    whole, rest = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.pt")["weights"] for name in ("whole", "rest")
    )
    for name, weight in whole.items():
        torch.testing.assert_close(rest[name], weight, rtol=0, atol=1e-4)


def test_a_pinned_batch_arrives_whole() -> None:
    tokens = torch.randint(50_000, (64, 4096))
    moved = [tokens.pin_memory().to(CUDA, non_blocking=True) for _ in range(8)]
    torch.cuda.synchronize()
    assert all(torch.equal(one.cpu(), tokens) for one in moved)


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_all_stages_and_what_follows(family: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["model.num_heads=2"] if family == "transformer" else []
    small = [word for word in SMALL if not word.startswith("optim") and (sizes == [] or "hidden" not in word)]
    assert train.main([*small, *sizes, f"model={family}", "trainer.device=auto", "name=run"]) == 0
    summary = json.loads(Path("outputs/run/summary.json").read_text(encoding="utf-8"))
    assert (summary["status"], summary["device"].partition(":")[0]) == ("finished", "cuda")
    assert summary["train"]["peak_memory_mib"] > 0
    assert scoring.main(["outputs/run", "--cache", "--dynamic", "--tune-tokens", "200"]) == 0
    assert score.main(["outputs/run", "tale.txt"]) == 0
    assert generate.main(["outputs/run", "-p", "the"]) == 0
    assert generate.main(["outputs/run", "-p", "the", "--beams", "3"]) == 0
    assert analyze.main(["outputs/run", "--device", "cuda", "--examples", "1", "--probes", "20"]) == 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_a_run_are_those_of_the_cpu(family: str, fit: Callable[..., FitResult], tmp_path: Path) -> None:
    fit("run", family, device="cpu")
    model = load_model(tmp_path / "run/checkpoints/best.pt")
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)  # Larger logits, and larger differences.
    torch.backends.cudnn.allow_tf32 = True
    device = choose_device("cuda")
    tokens = torch.randint(model.vocab_size, (1, 400), generator=torch.Generator().manual_seed(1))
    found = [
        copy.deepcopy(model).to(where).nll(tokens[:, :-1].to(where), tokens[:, 1:].to(where), state)[0].cpu()
        for where in (torch.device("cpu"), device)
        for state in [[part.to(where) for part in model.initial_state(1)]]
    ]
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=2e-4)


def test_a_full_device_is_named_in_one_line(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        assert train.main([*SMALL, "model=lstm", "model.hidden_size=2048", "trainer.device=cuda", "stages=[fit]"]) == 1
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "the machine ran out of resources (CUDA out of memory" in errors[0]
    assert "choose smaller sizes" in errors[0]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_two_devices_train_as_one(family: str, workplace: Path) -> None:
    sizes = ["model.num_heads=2"] if family == "transformer" else []
    small = [word for word in SMALL if sizes == [] or "hidden" not in word]
    line = [*small, *sizes, f"model={family}", "stages=[fit]", "trainer.device=cuda", "trainer.precision=fp32"]
    assert train.main([*line, "name=one", "model.dropout=0"]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, "-m", "torch_linguist.cli.train", *line, "name=two", "model.dropout=0"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=250,
    )
    one, two = (losses(Path("outputs") / name) for name in ("one", "two"))
    assert two == pytest.approx(one, abs=1e-3)
