"""The engine of a grid, with small programs in the place of trainings."""

import csv
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from torch_linguist.cli.sweep import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    Outcome,
    ResultTable,
    Run,
    SignalCounter,
    child_environment,
    read_summary,
    run_all,
)

STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
folder, what = Path(sys.argv[1]), sys.argv[2]
if what == "broken": print("starting"); print("error: seed=3: no good", file=sys.stderr); sys.exit(1)
if what == "crash": raise RuntimeError("boom")
if what == "killed": os.kill(os.getpid(), signal.SIGKILL)
if what == "silent": sys.exit(0)
folder.mkdir(parents=True)
def write(status):
    summary = {"status": status, "seed": 1, "parameters": 10, "lr": 0.1, "weight_decay": 0, "train": {"tokens": 5},
               "valid": {"loss": 1.5, "perplexity": float(what)}, "test": {"perplexity": 2 * float(what)}}
    (folder / "summary.json").write_text(json.dumps(summary))
def stop(number, frame):
    write("interrupted"); sys.exit(130)
signal.signal(signal.SIGINT, stop)
(folder / "threads").write_text(os.environ.get("OMP_NUM_THREADS", ""))
if what == "99": (folder / "ready").touch(); time.sleep(60)
if what == "98": signal.signal(signal.SIGINT, signal.SIG_IGN); (folder / "ready").touch(); time.sleep(60)
write("finished")
"""


def make_runs(folder: Path, whats: Sequence[str], refusals: Mapping[int, str] | None = None) -> list[Run]:
    (folder / "logs").mkdir(exist_ok=True)
    return [
        Run(
            index=index,
            folder=folder / f"{index:03}",
            log=folder / "logs" / f"{index:03}.txt",
            arguments=(str(folder / f"{index:03}"), what),
            command=f"tl-train what={what}",
            swept={"what": what},
            refusal=(refusals or {}).get(index),
        )
        for index, what in enumerate(whats, start=1)
    ]


def carry_out(runs: Sequence[Run], jobs: int = 1, keep_going: bool = True, stop_after: int = 0) -> list[Outcome]:
    """Runs the stand-in; where `stop_after` is not 0, so many SIGINTs reach us once the first run is ready."""
    ended: list[Outcome] = []

    def interrupt() -> None:
        ready = runs[0].folder / "ready"
        while not ready.exists():
            time.sleep(0.02)
        for _ in range(stop_after):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    with SignalCounter() as signals:
        if stop_after:
            threading.Thread(target=interrupt, daemon=True).start()
        outcomes = run_all(
            runs,
            jobs=jobs,
            keep_going=keep_going,
            signals=signals,
            on_start=lambda run: None,
            on_end=ended.append,
            on_stop=lambda count: None,
            program=[sys.executable, "-c", STAND_IN],
        )
    assert outcomes == ended
    return outcomes


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_run_ends_as_what_it_was(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, ["7", "broken", "crash", "killed", "silent", "8"], {6: "model=x: no such model"})
    outcomes = carry_out(runs, jobs=2)
    by_index = {one.run.index: one for one in outcomes}
    assert [by_index[index].status for index in range(1, 7)] == [FINISHED, *[FAILED] * 5]
    assert {index: one.exit_code for index, one in by_index.items()} == {1: 0, 2: 1, 3: 1, 4: -9, 5: 0, 6: 2}
    assert [by_index[index].error for index in range(1, 7)] == [
        "",
        "seed=3: no good",
        "RuntimeError: boom",
        "killed by SIGKILL (out of memory?)",
        "it ended without a summary.json",
        "model=x: no such model",
    ]
    assert by_index[1].valid_perplexity == 7.0
    assert not runs[5].log.exists()


def test_a_row_holds_what_the_summary_says(tmp_path: Path) -> None:
    (outcome,) = carry_out(make_runs(tmp_path, ["7"]))
    row = outcome.row()
    assert row.pop("seconds") > 0
    assert row == {
        "index": 1,
        "folder": "001",
        "what": "7",
        "seed": 1,
        "status": "finished",
        "exit_code": 0,
        "parameters": 10,
        "lr": 0.1,
        "weight_decay": 0,
        "train_tokens": 5,
        "valid_loss": 1.5,
        "valid_perplexity": 7.0,
        "test_perplexity": 14.0,
        "error": "",
        "command": "tl-train what=7",
    }


def test_the_first_failure_ends_the_grid_on_demand(tmp_path: Path) -> None:
    outcomes = carry_out(make_runs(tmp_path, ["7", "broken", "8", "9"]), keep_going=False)
    assert [one.status for one in outcomes] == [FINISHED, FAILED]
    refused = carry_out(make_runs(tmp_path / "..", ["x", "8"], {1: "no"}), keep_going=False)
    assert [one.error for one in refused] == ["no"]


def test_what_runs_beside_a_failure_is_interrupted(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, ["99", "broken"])
    # The one that fails starts only when the other can be interrupted.
    script = f"import time, os\nwhile not os.path.exists({str(tmp_path / '001' / 'ready')!r}): time.sleep(0.02)\n"
    with SignalCounter() as signals:
        outcomes = run_all(
            runs,
            jobs=2,
            keep_going=False,
            signals=signals,
            on_start=lambda run: None,
            on_end=lambda outcome: None,
            on_stop=lambda count: None,
            program=[sys.executable, "-c", f"import sys\nif sys.argv[2] == 'broken':\n  exec({script!r})\n{STAND_IN}"],
        )
    assert [(one.run.index, one.status) for one in outcomes] == [(2, FAILED), (1, INTERRUPTED)]


def test_the_first_signal_lets_runs_save(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, ["99", "7"])
    (outcome,) = carry_out(runs, stop_after=1)
    assert (outcome.status, outcome.exit_code) == (INTERRUPTED, 130)
    assert outcome.valid_perplexity == 99.0
    assert not runs[1].folder.exists()


def test_the_second_signal_kills(tmp_path: Path) -> None:
    begin = time.monotonic()
    (outcome,) = carry_out(make_runs(tmp_path, ["98"]), stop_after=2)
    assert outcome.exit_code == -9
    assert time.monotonic() - begin < 50


def test_signals_are_handed_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with SignalCounter() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert (signals.count, signals.last) == (1, signal.SIGTERM)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_no_child_survives_an_error_of_ours(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, ["7", "99"])

    def on_end(outcome: Outcome) -> None:
        while not (runs[1].folder / "ready").exists():
            time.sleep(0.02)
        raise OSError(28, "No space left on device")

    with SignalCounter() as signals, pytest.raises(OSError, match="No space"):
        run_all(
            runs,
            jobs=2,
            keep_going=True,
            signals=signals,
            on_start=lambda run: None,
            on_end=on_end,
            on_stop=lambda count: None,
            program=[sys.executable, "-c", STAND_IN],
        )
    # A child that was left behind would go on sleeping and could be found by its arguments.
    arguments = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)]
    assert not [line for line in arguments if str(runs[1].folder).encode() in line]


def _readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def test_cores_are_divided_among_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    assert "OMP_NUM_THREADS" not in child_environment(1)
    assert child_environment(2)["OMP_NUM_THREADS"] == str(max(1, cores // 2))
    assert child_environment(1000)["OMP_NUM_THREADS"] == "1"
    carry_out(make_runs(tmp_path, ["7", "8"]), jobs=2)
    assert (tmp_path / "001" / "threads").read_text() == str(max(1, cores // 2))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert child_environment(2)["OMP_NUM_THREADS"] == "7"


def test_the_table_grows_by_whole_rows(tmp_path: Path) -> None:
    table = ResultTable(tmp_path / "grid.csv", ["model", "seed"])
    assert rows_of(table.path) == []
    rows: list[dict[str, Any]] = [
        {"index": 1, "model": "lstm", "seed": 3, "error": 'a, "b"\nc', "lr": None},
        {"index": 2, "model": "é", "lr": 1e-05},
    ]
    for row in rows:
        table.append(row)
        assert table.path.read_text(encoding="utf-8").endswith("\n")
    first, second = rows_of(table.path)
    assert (first["model"], first["seed"], first["error"], first["lr"]) == ("lstm", "3", 'a, "b"\nc', "")
    assert (second["index"], second["model"], float(second["lr"])) == ("2", "é", 1e-05)
    assert len(set(table.columns)) == len(table.columns)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00"])
def test_a_damaged_summary_is_no_summary(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    assert read_summary(tmp_path) == {}
    assert read_summary(tmp_path / "nowhere") == {}
