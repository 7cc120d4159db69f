"""`tl-grid` from its command line to its table and page, with a small program in the place of the trainings."""

import csv
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torch_linguist.cli import grid
from torch_linguist.config import training_run
from torch_linguist.sweep.engine import SignalCounter
from torch_linguist.sweep.sweep_folder import sole_owner

ROOT = Path(__file__).resolve().parents[3]
STAND_IN = ROOT / "tests" / "assets" / "stand_in_run.py"
Grid = Callable[..., int]
LRS = "optim.lr=1e-3,3e-3,1e-2"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which `tl-grid` makes its runs by the stand-in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STAND_IN", raising=False)
    monkeypatch.setattr(training_run, "EXECUTABLE", (sys.executable, str(STAND_IN)))
    return tmp_path


@pytest.fixture
def run_grid_command(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Grid:
    """`run_grid_command(*arguments, orders={...}, page=False)`: the command in this process; its exit code.

    The figures of the page take longer than all runs, so they are drawn only on demand.
    """

    def run(*arguments: str, orders: dict[str, Any] | None = None, page: bool = False) -> int:
        monkeypatch.setenv("STAND_IN", json.dumps(orders or {}))
        with monkeypatch.context() as patch:
            if not page:
                patch.setattr("torch_linguist.sweep.sweep_page.write_sweep_page", lambda folder, *_: folder)
            return grid.main(list(arguments))

    return run


def rows_of(folder: Path, name: str = "grid.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def traced(folder: Path) -> list[str]:
    """The runs that were started, in order; those that went on with a folder have a plus."""
    return (folder / "trace").read_text().split()


def test_a_grid_leaves_a_row_a_run_and_a_page(
    run_grid_command: Grid, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run_grid_command("model=gru,lstm", LRS, "jobs=3", "name=g", orders={"002": "kill", "003": "fail"}, page=True)
        == 0
    )
    folder, output = workplace / "outputs" / "g", capsys.readouterr().out
    rows = {row["index"]: row for row in rows_of(folder)}
    assert sorted(rows) == ["1", "2", "3", "4", "5", "6"]
    assert [rows[index]["status"] for index in sorted(rows)] == ["finished", "failed", "failed", *["finished"] * 3]
    assert (rows["2"]["exit_code"], rows["2"]["error"]) == ("-9", "killed by SIGKILL (out of memory?)")
    assert rows["3"]["error"] == "nothing good"
    # The least loss of the stand-in: the LSTM nearest to 10 ** -2.5.
    assert "best: outputs/g/005\n  tl-train model=lstm optim.lr=0.003\n" in output
    assert rows["5"]["command"] == "tl-train model=lstm optim.lr=0.003"
    page = (folder / "index.html").read_text()
    assert page.count("data:image/png;base64,") >= 4
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert {path.name for path in (folder / "figures").iterdir()} >= {"importance.png", "curves.png", "parallel.png"}
    assert "6 runs: 4 finished, 2 failed" in page


def test_started_again_it_makes_what_is_missing(
    run_grid_command: Grid, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [LRS, "name=g"]
    assert run_grid_command(*line, orders={"002": "fail"}) == 0
    folder = workplace / "outputs" / "g"
    before = rows_of(folder)
    # Whole: nothing is made, and the table is what it was.
    assert run_grid_command(*line) == 0
    assert "3 of 3 runs have ended" in capsys.readouterr().out
    assert (rows_of(folder), traced(folder)) == (before, ["001", "002", "003"])
    # A row is gone but its run finished: it comes back without a run.
    lines = (folder / "grid.csv").read_text().splitlines(keepends=True)
    (folder / "grid.csv").write_text("".join(lines[:-1]))
    assert run_grid_command(*line) == 0
    found = {row["index"]: row["valid_loss"] for row in rows_of(folder)}
    assert found == {row["index"]: row["valid_loss"] for row in before}
    assert len(traced(folder)) == 3
    # Failed runs stay as they are unless they are asked for.
    assert run_grid_command(*line, "retry_failed=true") == 0
    assert traced(folder)[3:] == ["002"]
    assert [row["status"] for row in rows_of(folder)] == ["finished"] * 3


def test_an_interrupted_run_goes_on_in_its_folder(run_grid_command: Grid, workplace: Path) -> None:
    assert (
        run_grid_command(
            LRS,
            "name=g",
            orders={"002": "fail", "003": "fail"},
        )
        == 0
    )
    folder = workplace / "outputs" / "g"
    text = (folder / "grid.csv").read_text().replace("failed", "interrupted")
    (folder / "grid.csv").write_text(text)
    (folder / "002" / "checkpoints").mkdir(parents=True)
    (folder / "002" / "config.yaml").touch()
    (folder / "002" / "checkpoints" / "last.pt").touch()
    (folder / "003").mkdir()
    (folder / "003" / "half.csv").touch()
    assert run_grid_command(LRS, "name=g") == 0
    assert traced(folder)[3:] == ["002+", "003"]
    # What could not go on was removed before its run was made anew.
    assert not (folder / "003" / "half.csv").exists()
    assert [row["status"] for row in rows_of(folder)] == ["finished"] * 3


def test_killed_and_started_again_no_run_is_lost_or_made_twice(workplace: Path) -> None:
    command = (
        "import sys\nfrom torch_linguist.cli import grid\nfrom torch_linguist.config import training_run\n"
        f"training_run.EXECUTABLE = (sys.executable, {str(STAND_IN)!r})\nsys.exit(grid.main(sys.argv[1:]))\n"
    )
    line = [sys.executable, "-c", command, "seed=range(1,5)"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STAND_IN": json.dumps({"003": "wait"})}
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL)
    while not list(workplace.glob("outputs/*/003/ready")):
        assert process.poll() is None
        time.sleep(0.02)
    (folder,) = (workplace / "outputs").iterdir()
    process.kill()
    process.wait()
    assert len(rows_of(folder)) == 2
    # Without a name it finds its own folder. The run left behind still works, and is let end.
    again = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True)
    assert again.stdout is not None
    assert again.stdout.readline() == "waiting for run 003 of the earlier start, which is still running\n"
    (folder / "wait").touch()
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert "continuing: 3 of 4 runs have ended" in output
    assert traced(folder) == ["001", "002", "003", "004"]
    assert sorted(row["index"] for row in rows_of(folder)) == ["1", "2", "3", "4"]
    assert list((workplace / "outputs").iterdir()) == [folder]


def test_the_same_line_after_a_whole_sweep_makes_another(run_grid_command: Grid, workplace: Path) -> None:
    for _ in range(2):
        assert run_grid_command(LRS) == 0
    assert len(list((workplace / "outputs").iterdir())) == 2


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (["seed=range(1,1)"], 2, "error: seed=range(1,1): lists no value"),
        (["optim.lrr=1,2"], 2, "error: optim.lrr"),
        (["model=gru,lsmt", "fail_fast=true"], 2, "error: model=lsmt: there is no such model; nearest: lstm"),
        (["seed=1,2", "seeds=3"], 2, "error: seeds=3: the seed is already swept; leave one of the two out"),
        (["seed=1,2", "jobs=0"], 2, "error: jobs=0: must be at least 1"),
        (["seed=1,2", "sweep=bayes"], 2, "error: sweep=bayes: must be one of grid, random, tpe"),
        (["seed=1,2", "launcher=slurm"], 2, "error: launcher=slurm: must be one of local, submitit, ray"),
        (["seed=1,2", "prune=true"], 2, "error: prune=true: requires sweep=random or sweep=tpe"),
        (["seed=1", "sweep=tpe"], 2, "error: nothing to search: give a key several values"),
        (["optim.lr=interval(1e-2,1e-3)", "sweep=tpe"], 2, "error: optim.lr=interval(1e-2,1e-3): interval(0.01,0.001)"),
        (["optim.lr=interval(-1,1)", "sweep=tpe"], 2, 'error: optim.lr=-1.0: must be "auto" or a number greater'),
        (["name=g", "seed=1,2"], 1, "error: outputs/g: already exists and is not the folder of a sweep"),
        (["name=h", "seed=1,2"], 1, "error: outputs/h: belongs to another sweep (without tl-train seed=2, with "),
        (["name=h", "seed=1,3"], 1, "error: outputs/h: another tl-grid is using this folder"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    line: list[str],
    code: int,
    message: str,
    run_grid_command: Grid,
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (workplace / "outputs" / "g").mkdir(parents=True)
    (workplace / "outputs" / "h").mkdir()
    identity = {"sweep": "grid", "commands": ["tl-train seed=1", "tl-train seed=3"]}
    (workplace / "outputs" / "h" / "sweep.json").write_text(json.dumps(identity))
    before = sorted(workplace.rglob("*"))
    with sole_owner(workplace / "outputs" / "h"):
        assert run_grid_command(*line) == code
    errors = capsys.readouterr().err
    assert errors.startswith(message)
    assert errors.count("\n") == 1
    assert [path for path in sorted(workplace.rglob("*")) if path.name != "sweep.lock"] == before


def test_fail_fast_ends_the_sweep_at_the_first_failure(run_grid_command: Grid, workplace: Path) -> None:
    assert run_grid_command("seed=range(1,6)", "name=g", "fail_fast=true", orders={"002": "fail"}) == 1
    folder = workplace / "outputs" / "g"
    assert [row["status"] for row in rows_of(folder)] == ["finished", "failed"]
    # The failed run is an end too; the others are made when the sweep is started again.
    assert run_grid_command("seed=range(1,6)", "name=g") == 0
    assert traced(folder) == ["001", "002", "003", "004", "005"]


def test_seeds_repeat_every_point(run_grid_command: Grid, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["optim.lr=1e-2,3e-3", "seed=4", "seeds=3", "name=g"]
    assert run_grid_command(*line, orders={"002": "fail"}) == 0
    folder = workplace / "outputs" / "g"
    rows = rows_of(folder)
    assert [(row["optim.lr"], row["seed"]) for row in rows] == [
        (lr, seed) for lr in ("0.01", "0.003") for seed in ("4", "5", "6")
    ]
    points = {row["optim.lr"]: row for row in rows_of(folder, "grid_seeds.csv")}
    assert {lr: (row["count"], row["failed"]) for lr, row in points.items()} == {
        "0.01": ("2", "1"),
        "0.003": ("3", "0"),
    }
    for lr, row in points.items():
        losses = [float(one["valid_loss"]) for one in rows if one["optim.lr"] == lr and one["status"] == "finished"]
        assert float(row["valid_loss_mean"]) == pytest.approx(statistics.mean(losses))
        assert float(row["valid_loss_std"]) == pytest.approx(statistics.stdev(losses))
    output = capsys.readouterr().out
    assert f"best point over 3 seeds: valid loss {float(points['0.003']['valid_loss_mean']):.4f} ± " in output
    assert "\n  tl-train optim.lr=0.003 seed=4\n" in output


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_search_goes_on_with_its_study(kind: str, run_grid_command: Grid, workplace: Path) -> None:
    optuna = pytest.importorskip("optuna")
    line = [f"sweep={kind}", "optim.lr=tag(log,interval(1e-4,1e-1))", "model=gru,lstm", "+model.x=1", "name=g"]
    line.remove("+model.x=1")
    assert run_grid_command(*line, "trials=4", orders={"003": "fail"}) == 0
    folder = workplace / "outputs" / "g"
    first = rows_of(folder)
    assert run_grid_command(*line, "trials=9", "jobs=2") == 0
    rows = sorted(rows_of(folder), key=lambda row: int(row["index"]))
    assert rows[:4] == first
    assert traced(folder)[:4] == ["001", "002", "003", "004"]
    assert sorted(traced(folder)) == [f"{index:03}" for index in range(1, 10)]
    # No point is drawn again, and every one lies within its axes.
    assert len({row["optim.lr"] for row in rows}) == 9
    assert all(1e-4 <= float(row["optim.lr"]) <= 1e-1 and row["model"] in ("gru", "lstm") for row in rows)
    study = optuna.load_study(study_name="tl-grid", storage=f"sqlite:///{folder / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "FAIL", *["COMPLETE"] * 6]
    for trial, row in zip(study.trials, rows, strict=True):
        assert float(row["optim.lr"]) == trial.params["optim.lr"]
        if row["status"] == "finished":
            assert trial.value == float(row["valid_loss"])
    (folder / "study.db").unlink()
    assert run_grid_command(*line, "trials=9") == 1


def test_a_losing_run_of_a_search_is_stopped(
    run_grid_command: Grid, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optuna = pytest.importorskip("optuna")

    # The last point would never end by itself, and its losses are the worst.
    rates = ["0.003", "0.002", "0.004", "0.005", "3"]
    sampler = optuna.samplers.RandomSampler()
    sampler.sample_independent = lambda study, trial, name, distribution: rates[trial.number]
    monkeypatch.setattr("torch_linguist.sweep.search.make_sampler", lambda *_: sampler)
    monkeypatch.setattr("torch_linguist.sweep.engine.PROGRESS_SECONDS", 0.01)
    orders = {"005": "forever", **{f"00{number}": "wait" for number in range(1, 5)}}
    opener = threading.Timer(0.0, _open_when_read, [workplace / "outputs" / "g"])
    opener.start()
    line = ["sweep=random", f"optim.lr={','.join(rates)}", "trials=5", "name=g", "prune=true"]
    assert run_grid_command(*line, orders=orders) == 0
    opener.join()
    rows = rows_of(workplace / "outputs" / "g")
    assert [row["status"] for row in rows] == [*["finished"] * 4, "pruned"]
    assert rows[4]["error"] == "stopped: it was losing"
    assert float(rows[4]["valid_loss"]) > 5


def _open_when_read(folder: Path) -> None:
    """Lets the runs that wait go on once there was time to look at their losses."""
    while not (folder / "001" / "ready").exists():
        time.sleep(0.02)
    time.sleep(1.0)
    (folder / "wait").touch()


def test_the_first_ctrl_c_ends_the_sweep_and_it_goes_on_later(run_grid_command: Grid, workplace: Path) -> None:
    folder = workplace / "outputs" / "g"

    class Pressed(SignalCounter):
        @property
        def count(self) -> int:
            return int((folder / "002" / "ready").exists())

        @count.setter
        def count(self, value: int) -> None: ...

        @property
        def last(self) -> int:
            return int(signal.SIGINT)

        @last.setter
        def last(self, value: int) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch_linguist.sweep.sweep.SignalCounter", Pressed)
        assert run_grid_command("seed=range(1,4)", "name=g", orders={"002": "forever"}) == 130
    assert [row["status"] for row in rows_of(folder)] == ["finished", "interrupted"]
    assert run_grid_command("seed=range(1,4)", "name=g") == 0
    assert [(row["index"], row["status"]) for row in rows_of(folder)] == [
        ("1", "finished"), ("2", "finished"), ("3", "finished"),
    ]  # fmt: skip
