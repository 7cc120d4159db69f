"""Several processes train as one: the same losses, every token once, and what a signal or a death does to them.

All families are trained by one launch of `processes_driver.py`; the command is launched three times.
"""

import csv
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import processes_driver as driver
import pytest
import torch
from small_runs import write_tale

from torch_linguist.checkpoint import load_model, read_checkpoint
from torch_linguist.cli import train

ROOT = Path(__file__).resolve().parents[3]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
PLAIN = ["data=text", "data.path=tale.txt", "model=gru", "model.embedding_dim=16", "model.hidden_size=16"]
PLAIN += ["model.output=full", "model.dropout=0", "trainer.precision=fp32", "experiment=debug"]
GIVEN = ["optim.lr=0.01", "optim.weight_decay=0", "stages=[fit]"]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of torchrun in /proc"),
    pytest.mark.xdist_group("commands"),
]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def assert_close_weights(one: Path, other: Path, tolerance: float = 1e-4) -> None:
    left, right = (read_checkpoint(folder / "checkpoints" / "last.pt")["weights"] for folder in (one, other))
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver's trainings, with one process and with two."""
    folder = tmp_path_factory.mktemp("processes")
    for case in driver.CASES:
        driver.fit(case, folder / "one" / case, folder / "cache")
    for case in driver.LONG:
        driver.fit_long(case, folder / "one", folder / "cache")
    driver.fit("rnn", folder / "half", folder / "cache", updates=6)
    line = [*TORCHRUN, str(Path(driver.__file__)), str(folder)]
    dead = subprocess.run(
        [*line, "killed"], env=environment(), capture_output=True, text=True, timeout=250, check=False
    )
    assert "exitcode  : 9" in dead.stderr, dead.stderr[-3000:]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("case", driver.CASES)
def test_the_same_global_batch_gives_the_same_losses(case: str, trained: Path) -> None:
    one, two = trained / "one" / case, trained / "two" / case
    losses = column(one, "train_loss")
    assert len(losses) == driver.STEPS
    assert losses[-1] < losses[0]
    for name in ("train_loss", "gradient_norm", "valid_loss"):
        assert column(two, name) == pytest.approx(column(one, name), rel=1e-4)
    assert column(two, "tokens") == column(one, "tokens")
    assert_close_weights(one, two, 1e-3 if case == "transformer" else 1e-5)


@pytest.mark.parametrize("case", driver.LONG)
def test_two_hundred_updates_equal_those_of_one_process(case: str, trained: Path) -> None:
    one, two = (json.loads((trained / number / f"{case}.json").read_text()) for number in ("one", "two"))
    assert len(one) == driver.LONG_STEPS + 1
    assert one[-2] < one[0] - 0.5
    assert two == pytest.approx(one, abs=1e-5, rel=0)
    if case in driver.DOUBLE:  # The losses of updates are summed in float32, that of the validation is not.
        assert two[-1] == pytest.approx(one[-1], abs=1e-12, rel=0)


@pytest.mark.parametrize("case", driver.SHARDED)
def test_shards_train_alike(case: str, trained: Path) -> None:
    one, shards = (json.loads((trained / number / f"{case}.json").read_text()) for number in ("one", "sharded"))
    # The last number is the validation loss, of averaged weights in some.
    assert shards[:-1] == pytest.approx(one[:-1], abs=1e-5, rel=0)


def test_a_training_goes_on_with_shards_and_without(trained: Path) -> None:
    assert_close_weights(trained / "one" / "rnn", trained / "went on with shards", 1e-5)
    half = trained / "half of shards" / "checkpoints" / "last.pt"
    driver.fit("rnn", trained / "went on without shards", trained / "cache", resume=half)
    assert_close_weights(trained / "one" / "rnn", trained / "went on without shards", 1e-5)


def test_a_training_goes_on_with_the_same_shards_bit_for_bit(trained: Path) -> None:
    """From a state in the middle, and from the last one before both died with the next one all but written."""
    assert_close_weights(trained / "one" / "rnn", trained / "shards", 1e-5)
    for part in ("half of shards", "killed"):
        assert_close_weights(trained / "shards", trained / f"{part}, went on", 0.0)
        assert column(trained / f"{part}, went on", "train_loss")[-6:] == column(trained / "shards", "train_loss")[-6:]
    kept = trained / "killed" / "checkpoints"
    assert {path.name for path in kept.glob("shards-*")} > {"shards-4"}
    assert read_checkpoint(kept / "last.pt")["progress"]["step"] == 4


def test_each_process_writes_its_shards_and_one_the_best_model(trained: Path) -> None:
    folder, whole = (trained / name / "checkpoints" for name in ("shards", "one/rnn"))
    states = {torch.load(folder / name, weights_only=True)["shards"]["folder"] for name in ("last.pt", "previous.pt")}
    assert {path.name for path in folder.glob("shards-*")} == states > {"shards-12"}
    sizes = [path.stat().st_size for path in (folder / "shards-12").glob("*.distcp")]
    assert len(sizes) == 2
    assert max(sizes) < 0.7 * sum(sizes)
    last = torch.load(folder / "last.pt", weights_only=True)
    assert {*last["weights"].values()} == {None}
    best, expected = (load_model(path / "best.pt").state_dict() for path in (folder, whole))
    for name in expected:
        torch.testing.assert_close(best[name], expected[name], rtol=0, atol=1e-5)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert not list((trained / "shards.1" / "checkpoints").glob("best.pt"))


def test_compressed_gradients_train_alike(trained: Path) -> None:
    exact, rounded = (json.loads((trained / name / "gru sampled.json").read_text()) for name in ("two", "compressed"))
    assert rounded != exact
    assert rounded == pytest.approx(exact, abs=0.05)


def test_a_model_is_free_after_its_training(trained: Path) -> None:
    for number in range(2):
        assert (trained / f"free-{number}.txt").read_text() == "freed and trainable"


def test_the_whole_state_is_in_the_checkpoint(trained: Path) -> None:
    states = [read_checkpoint(trained / run / "rnn" / "checkpoints" / "last.pt")["progress"] for run in ("one", "two")]
    assert states[0]["batches"] == states[1]["batches"]
    for one, two in zip(states[0]["carried"], states[1]["carried"], strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
    masks = states[1]["random"]["processes"]
    assert len(masks) == 2
    assert not torch.equal(masks[0]["torch"], masks[1]["torch"])


def test_another_number_of_processes_goes_on(trained: Path) -> None:
    assert_close_weights(trained / "one" / "rnn", trained / "went on with two", 1e-5)
    half = trained / "half of two" / "checkpoints" / "last.pt"
    driver.fit("rnn", trained / "went on with one", trained / "cache", resume=half)
    assert_close_weights(trained / "one" / "rnn", trained / "went on with one", 1e-5)


def test_too_few_rows_are_refused(trained: Path) -> None:
    for number in range(2):
        assert "batch_size=1: is divided among 2" in (trained / f"refused-{number}.txt").read_text()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    return write_tale(folder)


@pytest.fixture
def launch(workplace: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts torchrun; whatever is left of it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*line: str) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*TORCHRUN, *line], cwd=workplace, env=environment(), stdout=pipe, stderr=pipe, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()


def workers(process: "subprocess.Popen[str]") -> dict[str, int]:
    """The processes that torchrun has started, by their rank."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
    found = {}
    for child in children:
        pairs = (
            entry.partition("=") for entry in Path(f"/proc/{child}/environ").read_text(encoding="utf-8").split("\0")
        )
        found[{name: value for name, _, value in pairs}.get("RANK", "")] = int(child)
    return found


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[Any]") -> None:
    deadline = time.monotonic() + 150
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def summary_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return content


def test_a_dead_process_is_reported_in_one_line(workplace: Path, tmp_path: Path) -> None:
    """Without torchrun, which would send a signal too."""
    shutil.copy(workplace / "tale.txt", tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, "-m", "torch_linguist.cli.train", *PLAIN, *GIVEN, "trainer.max_steps=1000000"]
    line += ["trainer.max_minutes=null", "checkpoint.every_steps=20", "name=deserted"]
    place = {**environment(), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    both = []
    errors = [tmp_path / "errors-0.txt", tmp_path / "errors-1.txt"]
    try:
        for rank, told in enumerate(errors):
            own = {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            with told.open("w") as file:
                process = subprocess.Popen(line, cwd=tmp_path, env=own, stdout=subprocess.DEVNULL, stderr=file)
            both.append(process)
        wait_for((tmp_path / "outputs" / "deserted" / "checkpoints" / "last.pt").is_file, both[0])
        both[1].kill()
        both[0].wait(timeout=200)
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert both[0].returncode == 1
    lines = [row for row in errors[0].read_text().splitlines() if row.startswith("error: ")]
    assert len(lines) == 1
    assert "process 0 of 2: another process of this training has ended" in lines[0]
    assert "resume=auto" in lines[0]


@pytest.mark.parametrize("shard", ["false", "true"])
def test_killed_processes_go_on_and_nothing_is_lost(
    shard: str, workplace: Path, launch: Callable[..., "subprocess.Popen[str]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torchrun restarts a run that loses a process; one that loses all of them is launched again, with shards here.

    Either way it goes on bit for bit like one that was left alone. One process continues a run of two with shards.
    """
    steps = ["trainer.max_steps=400", "trainer.eval_every=100", "checkpoint.every_steps=20", "trainer.log_every=20"]
    steps += ["logger=csv", "score.baseline_order=0", "trainer.sample_every=0"]
    command = ["--no-python", sys.executable, "-m", "torch_linguist.cli.train", *PLAIN, *GIVEN, *steps]
    command += [f"trainer.shard={shard}", f"output_dir=restarts-{shard}"]
    process = launch("--max-restarts=2", *command, "name=killed")
    folder = workplace / f"restarts-{shard}" / "killed"
    last = folder / "checkpoints" / "last.pt"
    output = ""
    for rank in ("1", "0"):
        begun = time.time()
        wait_for(lambda begun=begun: last.is_file() and last.stat().st_mtime > begun, process)  # type: ignore[misc]
        time.sleep(0.2 * random.random())
        at_work = workers(process)
        if shard == "true" and rank == "0":
            for number in (process.pid, *at_work.values()):
                os.kill(number, signal.SIGKILL)
            output, _ = process.communicate(timeout=60)
            process = launch(*command, "name=killed", "resume=auto")
        else:
            os.kill(at_work[rank], signal.SIGKILL)
    ending, errors = process.communicate(timeout=200)
    output += ending
    assert process.returncode == 0, errors[-3000:]
    # Whether a process meets the broken connection or torchrun's signal first is a matter of chance: see above.
    told = [row for row in errors.splitlines() if row.startswith("error: ")]
    assert [row for row in told if "of 2: another process of this training has ended" not in row] == []
    assert output.count("resuming ") == 2
    assert [path.name for path in folder.parent.iterdir()] == ["killed"]
    summary = summary_of(folder)
    assert (summary["status"], summary["processes"], summary["train"]["steps"]) == ("finished", 2, 400)

    process = launch(*command, "name=straight")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors[-3000:]
    straight = folder.with_name("straight")
    for name in ("step", "train_loss", "valid_loss"):
        assert column(folder, name) == column(straight, name)
    assert_close_weights(folder, straight, 0.0)
    for split in ("valid", "test"):
        assert summary[split] == summary_of(straight)[split]
    if shard == "true":
        monkeypatch.chdir(workplace)
        assert train.main([f"resume={folder}", "trainer.max_steps=420"]) == 0
        alone = summary_of(folder)
        assert (alone["status"], alone["processes"], alone["train"]["steps"]) == ("finished", 1, 420)


def test_all_stages_and_a_signal(
    workplace: Path, launch: Callable[..., "subprocess.Popen[str]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process has the signal, both heed it; one process alone then goes on."""
    steps = ["trainer.max_steps=600", "trainer.eval_every=20", "checkpoint.every_steps=20", "overfit.max_steps=10"]
    steps += ["lr_find.trial_factors=[1.0]", "grid.weight_decay=[0.1]", "trainer.device=cpu"]
    process = launch("-m", "torch_linguist.cli.train", *PLAIN, *steps, "name=stopped")
    folder = workplace / "outputs" / "stopped"
    wait_for((folder / "checkpoints" / "last.pt").is_file, process)
    os.kill(workers(process)["1"], signal.SIGTERM)
    output, errors = process.communicate(timeout=200)
    assert "Traceback" not in output
    summary = summary_of(folder)
    assert summary["status"] == "interrupted", errors[-3000:]
    assert set(summary["stages"]) >= {"check", "overfit", "lr_find", "grid", "fit"}
    assert summary["valid"]["loss"] > 0
    stopped_at = read_checkpoint(folder / "checkpoints" / "last.pt")["progress"]["step"]
    assert stopped_at < 600

    monkeypatch.chdir(workplace)
    assert train.main(["resume=outputs/stopped", f"trainer.max_steps={stopped_at + 40}"]) == 0
    finished = summary_of(folder)
    assert (finished["status"], finished["processes"], finished["train"]["steps"]) == ("finished", 1, stopped_at + 40)
    assert (folder / "model.jit").is_file()
    steps_written = column(folder, "step")
    assert steps_written == sorted(set(steps_written))
