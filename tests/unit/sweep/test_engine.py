"""The engine of a grid, with small programs in the place of trainings."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from torch_linguist.errors import LinguistError
from torch_linguist.sweep.engine import ListedRuns, SignalCounter, SweepCallback, SweepEngine
from torch_linguist.sweep.launchers import Launcher, LocalLauncher, make_launcher
from torch_linguist.sweep.outcomes import FAILED, FINISHED, INTERRUPTED, Outcome, SweepRun, read_summary
from torch_linguist.sweep.run_process import child_environment

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


def make_runs(folder: Path, whats: Sequence[str], refusals: Mapping[int, str] | None = None) -> list[SweepRun]:
    (folder / "logs").mkdir(exist_ok=True)
    return [
        SweepRun(
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


class Listener(SweepCallback):
    """Remembers the outcomes."""

    def __init__(self) -> None:
        self.heard: list[Outcome] = []

    def run_ended(self, outcome: Outcome) -> None:
        self.heard.append(outcome)


def carry_out(
    runs: Sequence[SweepRun],
    jobs: int = 1,
    keep_going: bool = True,
    stop_after: int = 0,
    launcher: Launcher | None = None,
    script: str = STAND_IN,
) -> list[Outcome]:
    """Runs the stand-in; where `stop_after` is not 0, so many SIGINTs reach us once the first run is ready."""
    listener = Listener()

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
        outcomes = SweepEngine(
            source=ListedRuns(runs),
            program=[sys.executable, "-c", script],
            jobs=jobs,
            keep_going=keep_going,
            signals=signals,
            callback=listener,
            launcher=launcher or LocalLauncher(),
            environment=child_environment(jobs),
        ).carry_out()
    assert outcomes == listener.heard
    return outcomes


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
    late = f"import sys\nif sys.argv[2] == 'broken':\n  exec({script!r})\n{STAND_IN}"
    outcomes = carry_out(runs, jobs=2, keep_going=False, script=late)
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

    class FullDisk(SweepCallback):
        def run_ended(self, outcome: Outcome) -> None:
            while not (runs[1].folder / "ready").exists():
                time.sleep(0.02)
            raise OSError(28, "No space left on device")

    program = [sys.executable, "-c", STAND_IN]
    with SignalCounter() as signals, pytest.raises(OSError, match="No space"):
        SweepEngine(ListedRuns(runs), program, 2, True, signals, FullDisk()).carry_out()
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
    assert child_environment(1, cores=3)["OMP_NUM_THREADS"] == "3"
    assert child_environment(2)["OMP_NUM_THREADS"] == str(max(1, cores // 2))
    assert child_environment(1000)["OMP_NUM_THREADS"] == "1"
    carry_out(make_runs(tmp_path, ["7", "8"]), jobs=2)
    assert (tmp_path / "001" / "threads").read_text() == str(max(1, cores // 2))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert child_environment(2)["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00"])
def test_a_damaged_summary_is_no_summary(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    assert read_summary(tmp_path) == {}
    assert read_summary(tmp_path / "nowhere") == {}


def test_a_run_that_somebody_is_still_at_is_waited_for_and_not_made_twice(tmp_path: Path) -> None:
    (run,) = make_runs(tmp_path, ["7"])
    lock = run.log.with_suffix(".lock")
    # Another process holds the run's lock, as one that a killed sweep has left behind does, and then finishes the run.
    holder = (
        f"import fcntl, json, pathlib, sys, time\nfile = open({str(lock)!r}, 'w')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
        f"print('held', flush=True)\nfolder = pathlib.Path({str(run.folder)!r})\ntime.sleep(0.5)\nfolder.mkdir()\n"
        "(folder / 'summary.json').write_text(json.dumps({'status': 'finished', 'valid': {'loss': 2.0}}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    (outcome,) = carry_out([run])
    assert (outcome.status, outcome.valid_loss) == (FINISHED, 2.0)
    assert process.wait() == 0
    assert not (run.folder / "threads").exists()


OPTIONS: dict[str, dict[str, Any]] = {
    "submitit": {"cluster": "local"},
    "ray": {"object_store_memory": 100 * 2**20, "_temp_dir": "/tmp/tl-ray"},
}


@pytest.mark.parametrize("name", ["submitit", "ray"])
def test_every_launcher_leaves_the_same_rows(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    whats = ["7", "broken", "killed", "8"]
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here = carry_out(make_runs(tmp_path / "here", whats), jobs=2)
    launcher = make_launcher(name, tmp_path / "there", 2, 1, OPTIONS[name])
    try:
        there = carry_out(make_runs(tmp_path / "there", whats), jobs=2, launcher=launcher)
    finally:
        launcher.close()

    def rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
        found = [{key: value for key, value in one.row().items() if key != "seconds"} for one in outcomes]
        return sorted(found, key=lambda row: int(row["index"]))

    assert rows(there) == rows(here)
    assert [row["status"] for row in rows(there)] == [FINISHED, FAILED, FAILED, FINISHED]
    assert rows(there)[2]["error"] == "killed by SIGKILL (out of memory?)"


def test_two_workers_run_at_once_and_stop_on_request(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    runs = make_runs(tmp_path, ["99", "98", "7"])
    launcher = make_launcher("submitit", tmp_path, 2, 1, OPTIONS["submitit"])
    # The first waits for an order, the second heeds only a kill: both must have started for the first to be ready.
    script = STAND_IN.replace(
        'if what == "99":',
        f"""
if what == "99":
    while not os.path.exists({str(runs[1].folder / "ready")!r}): time.sleep(0.02)
if what == "99":""",
    )
    try:
        outcomes = carry_out(runs, jobs=2, stop_after=2, launcher=launcher, script=script)
    finally:
        launcher.close()
    assert sorted((one.run.index, one.exit_code) for one in outcomes) == [(1, 130), (2, -9)]
    assert not runs[2].folder.exists()


def test_a_launcher_that_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(LinguistError, match=r"launcher=slurm: must be one of local, submitit, ray"):
        make_launcher("slurm", tmp_path, 1, 1, {})
    with pytest.raises(LinguistError, match=r"launcher_options: launcher=local takes none"):
        make_launcher("local", tmp_path, 1, 1, {"address": "auto"})
    pytest.importorskip("submitit")
    with pytest.raises(LinguistError, match=r"launcher=submitit: cannot be started: .*check launcher_options"):
        make_launcher("submitit", tmp_path, 1, 1, {"cluster": "local", "nonsense": 3})
