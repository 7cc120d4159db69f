"""The commands as a person runs them, from an empty folder; as processes where the process matters."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_runs import call, write_tale

from torch_linguist.cli import grid, train

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["model.embedding_dim=16", "model.hidden_size=16", "model.output=full"]
GIVEN = ["optim.lr=0.01", "optim.weight_decay=0"]

pytestmark = pytest.mark.xdist_group("commands")


def environment() -> dict[str, str]:
    chosen = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    chosen.pop("HYDRA_FULL_ERROR", None)
    return chosen


def start(command: str, *arguments: str, folder: Path) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", f"torch_linguist.cli.{command}", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=folder, env=environment(), stdout=pipe, stderr=pipe, text=True)


def run(command: str, *arguments: str, folder: Path) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    process = start(command, *arguments, folder=folder)
    output, errors = process.communicate(timeout=200)
    return process.returncode, output, errors


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An otherwise empty folder with a small text."""
    folder = tmp_path_factory.mktemp("workplace")
    return write_tale(folder)


@pytest.fixture(scope="module")
def trained(workplace: Path) -> Path:
    """A run of all six stages."""
    line = ["experiment=debug", "data=text", "data.path=tale.txt", *SMALL, "name=first", "trainer.max_steps=20"]
    code, output, errors = call("train", *line, folder=workplace)
    assert code == 0, errors
    assert "Traceback" not in output + errors
    return workplace / "outputs" / "first"


@pytest.mark.parametrize("command", ["train", "grid", "explore", "export", "eval", "score", "generate", "analyze"])
def test_help_needs_no_torch(command: str, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        f"from torch_linguist.cli.{command} import main\n"
        "code = main(['--help'])\n"
        "heavy = {'torch', 'datasets', 'pandas', 'matplotlib', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else code)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert f"usage: tl-{command}" in process.stdout
    assert max(map(len, process.stdout.splitlines())) <= 125


def test_no_first_update_waits_for_what_draws(workplace: Path) -> None:
    script = (
        "import os, sys\n"
        "from torch_linguist.cli.train import main\n"
        "from torch_linguist.trainer import Loop\n"
        "def update(loop):\n"
        "    print(*{'matplotlib', 'pandas', 'tensorboard', 'datasets'} & set(sys.modules), 'imported', flush=True)\n"
        "    os._exit(7)\n"
        "Loop.update = update\n"
        "main(sys.argv[1:])\n"
    )
    line = ["data=text", "data.path=tale.txt", *SMALL, "output_dir=unborn", "optim.lr=0.01", "stages=[fit]"]
    process = subprocess.run(
        [sys.executable, "-c", script, *line],
        cwd=workplace,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (7, "")
    assert process.stdout.splitlines()[-1] == "imported"


def test_help_lists_groups_choices_and_values(tmp_path: Path) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text("# Something of my own\n_target_: torch_linguist.model.GRU\n")
    code, output, _ = call("train", "--help", "--config-dir", "own", "trainer.batch_size=77", folder=tmp_path)
    assert code == 0
    for word in ("wikitext2", "transformer", "onecycle", "trainer.batch_size=77", "mine", "Something of my own"):
        assert word in output
    assert list(tmp_path.iterdir()) == [tmp_path / "own"]


def test_cfg_prints_what_would_run(tmp_path: Path) -> None:
    code, output, _ = call("train", "--cfg", "model=gru", "data=text", folder=tmp_path)
    assert code == 0
    assert "_target_: torch_linguist.model.GRU" in output
    code, output, _ = call("grid", "--cfg", "model=gru,lstm", "seed=1", folder=tmp_path)
    assert (code, output) == (0, "tl-train model=gru seed=1\ntl-train model=lstm seed=1\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (["model=lsmt"], 2, "error: model=lsmt: there is no such model; nearest: lstm. Choices: "),
        (["optim.lr=-1"], 2, 'error: optim.lr=-1: must be "auto" or a number greater than 0\n'),
        (["trainer.batch_size=abc"], 2, "error: trainer.batch_size=abc: not an int\n"),
        (["trainer.batch_size=0"], 2, "error: trainer.batch_size=0: must be greater than 0\n"),
        (["stages=[fitt]"], 2, "error: stages=[fitt]: no such stage; "),
        (["optim.betas=[2,0]"], 2, "error: optim: Invalid beta"),
        (["--nope"], 2, "error: unrecognized arguments: --nope; see tl-train --help\n"),
        (["data=text", "data.path=nowhere.txt"], 1, "error: "),
        (
            ["data=text", "data.path=tale.txt", "output_dir=tale.txt", *GIVEN],
            1,
            "error: output_dir=tale.txt: cannot be",
        ),
        (["resume=true", "output_dir=none"], 1, "error: resume=true: none holds no run that can continue"),
    ],
)
def test_mistakes_end_in_one_line(
    line: list[str],
    code: int,
    message: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # In this process, which has torch already: most of these commands would spend their time importing it.
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = sorted(workplace.rglob("*"))
    ended = train.main(line)
    output, errors = capsys.readouterr()
    assert (ended, output) == (code, "")
    assert errors.startswith(message)
    assert len(errors.splitlines()) == 1
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        (
            ["model=transformer", "score.stride=99"],
            1,
            "score.stride=99: must lie between 1 and the model's context of 32 tokens",
        ),
        (
            ["model=lstm", "model.output=sampled", "trainer.snapshots=2", "trainer.distill=0.5"],
            2,
            "trainer.distill=0.5: needs all logits of a step; set model.output=full or adaptive",
        ),
    ],
)
def test_what_does_not_suit_the_model_is_met_before_the_training(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(workplace)
    line = ["data=text", "data.path=tale.txt", "experiment=debug", "name=unsuited", "output_dir=unsuited"]
    assert train.main([*line, *settings]) == code
    output, errors = capsys.readouterr()
    assert errors == f"error: {message}\n"
    assert "[check]" not in output


def test_the_process_ends_with_the_code(tmp_path: Path) -> None:
    code, output, errors = run("train", "model=lsmt", folder=tmp_path)
    assert (code, output, len(errors.splitlines())) == (2, "", 1)
    code, _, errors = run("train", "model=lsmt", "--debug", folder=tmp_path)
    assert code == 2
    assert "Traceback" in errors


def test_six_stages_leave_their_artifacts(trained: Path) -> None:
    made = {path.name for path in trained.iterdir()}
    wanted = {"config.yaml", "tokenizer.json", "summary.json", "check.json", "overfit.csv", "overfit.png", "grid.csv"}
    wanted |= {"lr_finder.csv", "lr_finder.png", "lr_trials.csv", "grid.png", "metrics.csv", "curves.png", "model.jit"}
    assert wanted | {"checkpoints", "tensorboard"} <= made
    summary = json.loads((trained / "summary.json").read_text())
    assert (summary["status"], summary["model"], summary["data"], summary["tokenizer"]) == (
        "finished",
        "lstm",
        "text",
        "word",
    )
    assert summary["lr"] > 0
    assert summary["valid"]["perplexity"] > 1


def test_export_takes_the_newest_run(trained: Path, workplace: Path) -> None:
    (trained / "model.jit").unlink()
    code, output, errors = call("export", "--jit", folder=workplace)
    assert (code, errors) == (0, "")
    assert "run: outputs/first (the newest)" in output
    module = torch.jit.load(str(trained / "model.jit"))  # type: ignore[no-untyped-call]
    logits, _ = module(torch.zeros(2, 3, dtype=torch.int64), module.initial_state(2))
    assert logits.shape[:2] == (2, 3)
    code, output, errors = call("export", folder=workplace)
    ways = "--arpa, --gguf, --hf, --jit, --onnx, --pt2, --safetensors or --quantize int8"
    assert (code, output, errors) == (2, "", f"error: choose a format: {ways}; see tl-export --help\n")
    assert call("export", "nowhere", "--jit", folder=workplace)[0] == 1


def test_a_run_goes_on(trained: Path, workplace: Path) -> None:
    code, output, errors = call("train", "resume=outputs/first", "trainer.max_steps=30", folder=workplace)
    assert code == 0, errors
    assert output.startswith("resuming outputs/first\n")
    summary = json.loads((trained / "summary.json").read_text())
    assert (summary["status"], summary["train"]["steps"]) == ("finished", 30)
    assert [path.name for path in (workplace / "outputs").iterdir()] == ["first"]


def test_ctrl_c_saves_and_is_reported(workplace: Path) -> None:
    line = ["experiment=debug", "data=text", "data.path=tale.txt", *SMALL, *GIVEN, "stages=[fit]"]
    process = start("train", *line, "trainer.max_steps=10000000", "output_dir=stopped", "name=one", folder=workplace)
    checkpoint = workplace / "stopped" / "one" / "checkpoints" / "last.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, output + errors
    assert json.loads((checkpoint.parents[1] / "summary.json").read_text())["status"] == "interrupted"


def test_a_grid_makes_a_row_a_run(workplace: Path) -> None:
    line = [
        "experiment=debug",
        "data=text",
        "data.path=tale.txt",
        *SMALL,
        *GIVEN,
        "stages=[fit]",
        "trainer.max_steps=5",
    ]
    swept = ["model=gru,lsmt", "data.encoding=utf-8,utf-16"]
    code, output, errors = call("grid", *line, *swept, "jobs=2", "output_dir=grids", "name=g", folder=workplace)
    assert code == 0, errors
    with (workplace / "grids" / "g" / "grid.csv").open(newline="") as file:
        rows = {(row["model"], row["data.encoding"]): row for row in csv.DictReader(file)}
    assert len(rows) == 4
    for (model, encoding), row in rows.items():
        good = model != "lsmt" and encoding == "utf-8"
        assert row["status"] == ("finished" if good else "failed")
        assert bool(row["error"]) != good
        assert row["exit_code"] == ("0" if good else "2" if model == "lsmt" else "1")
        folder = workplace / "grids" / "g" / row["folder"]
        if good:
            summary = json.loads((folder / "summary.json").read_text())
            assert summary["model"] == model
            assert float(row["valid_perplexity"]) == summary["valid"]["perplexity"]
            assert (row["seed"], float(row["lr"])) == ("1", 0.01)
    best = min(
        (row for row in rows.values() if row["status"] == "finished"), key=lambda row: float(row["valid_perplexity"])
    )
    assert f"best: grids/g/{best['folder']}\n  {best['command']}\n" in output


def test_a_grid_without_a_run_that_ends_well_fails(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    line = ["data=text", "data.path=nowhere.txt", "experiment=debug", *GIVEN, "output_dir=grids", "name=none"]
    assert grid.main([*line, "seed=1"]) == 1
    assert "001 failed: " in capsys.readouterr().out
    assert grid.main(["model=lsmt,lsmtt", "output_dir=grids", "name=wrong"]) == 2
    assert capsys.readouterr().err.startswith("error: model=lsmt: there is no such model")
    assert grid.main(["jobs=0", "seed=1,2", "output_dir=grids", "name=wrong"]) == 2
    assert grid.main(["model=gru,lsmt", "keep_going=false", "output_dir=grids", "name=wrong"]) == 2
    assert not (workplace / "grids" / "wrong").exists()
