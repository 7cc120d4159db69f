"""The process of one run, and the lock that it holds for as long as it lives."""

import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch_linguist.sweep.outcomes import Ended, Run, read_summary

if sys.platform != "win32":
    import fcntl

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Task:
    """A run as it goes to wherever it is carried out: plain values, nothing of ours to unpickle.

    Attributes:
        command: the whole command line.
        folder: that the run will make, as an absolute path.
        log: file that takes what the run prints; `.lock`, `.interrupt` and `.kill` beside it are for us.
        directory: where the command is run.
        environment: variables that are set, beside those that are there.
    """

    command: tuple[str, ...]
    folder: str
    log: str
    directory: str
    environment: Mapping[str, str] = field(default_factory=dict)


def task_of(run: Run, program: Sequence[str], environment: Mapping[str, str]) -> Task:
    """The task of a run.

    Args:
        run: which.
        program: the command line before its arguments.
        environment: variables that are set.
    """
    folder, log = str(run.folder.absolute()), str(run.log.absolute())
    return Task((*program, *run.arguments), folder, log, str(Path.cwd()), dict(environment))


def child_environment(jobs: int, cores: int | None = None) -> dict[str, str]:
    """What the environment of a run adds to ours: its share of the cores, and the same torch_linguist.

    Args:
        jobs: runs at a time, among whom this machine's cores are divided.
        cores: of each run; None for that share. A variable that the user has set is left as it is.
    """
    added: dict[str, str] = {}
    if jobs > 1 or cores is not None:
        share = cores_of_a_run(jobs, cores)
        added = {name: os.environ.get(name, str(share)) for name in THREADS}
    home = str(Path(__file__).resolve().parents[2])
    if home not in (*site.getsitepackages(), site.getusersitepackages()):
        # From a checkout that is not installed; `-P` keeps the rest of the current folder out of the import path.
        added["PYTHONPATH"] = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    return added


def cores_of_a_run(jobs: int, cores: int | None = None) -> int:
    """How many cores a run may take."""
    if cores is not None:
        return cores
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, ours // jobs)


class Child:
    """A run's process, in a session of its own, so that Ctrl-C reaches it through us alone.

    The process holds the lock of its run as long as it lives, even if we are killed: who starts the sweep again waits
    for it instead of making the run twice in one folder.

    Args:
        task: the run.
        lock: an open file descriptor from `acquire`, which is handed over; None where there are no locks.
    """

    def __init__(self, task: Task, lock: int | None) -> None:
        self.start = time.monotonic()
        Path(task.log).parent.mkdir(parents=True, exist_ok=True)
        try:
            with Path(task.log).open("wb") as log:
                self.process = subprocess.Popen(
                    task.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=task.directory,
                    env={**os.environ, **task.environment},
                    start_new_session=True,
                    pass_fds=() if lock is None else (lock,),
                )
        finally:
            release(lock)

    def poll(self) -> Ended | None:
        """How it ended; None while it runs."""
        code = self.process.poll()
        return None if code is None else Ended(code, time.monotonic() - self.start)

    def interrupt(self) -> None:
        """Asks it to save what it has and end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Ends it, and whatever it started, at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Waits for its end."""
        self.process.wait()


def acquire(log: str) -> tuple[bool, int | None]:
    """Takes the lock of a run unless another process has it.

    Args:
        log: of the run; the lock lies beside it.

    Returns:
        Whether it is ours, and the descriptor that holds it (None where the system has no such locks).
    """
    if sys.platform == "win32":
        return True, None
    path = Path(log).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False, None
    return True, descriptor


def release(lock: int | None) -> None:
    """Gives a lock back that was not handed to a process."""
    if lock is not None:
        os.close(lock)


def is_finished(task: Task) -> bool:
    """Whether the run is there already, made by a process that an earlier start of the sweep left behind."""
    return read_summary(Path(task.folder)).get("status") == "finished"


def make_run(task: Task) -> Ended:
    """Makes a run from its start to its end; what the workers of a cluster carry out.

    Orders come through files beside the log, which reach every machine that sees the folder.

    Args:
        task: the run.

    Returns:
        How its process ended.
    """
    while True:
        ours, lock = acquire(task.log)
        if ours:
            break
        time.sleep(POLL_SECONDS)
    if is_finished(task):
        release(lock)
        return Ended(0, 0.0)
    asked = False
    child = Child(task, lock)
    try:
        while (ended := child.poll()) is None:
            time.sleep(POLL_SECONDS)
            if order_path(task, "kill").exists():
                child.kill()
            elif not asked and order_path(task, "interrupt").exists():
                asked = True
                child.interrupt()
    finally:
        child.kill()
        child.wait()
    return ended


def order_path(task: Task, order: str) -> Path:
    """The file that gives a worker the order to `interrupt` or `kill` its run."""
    return Path(task.log).with_suffix(f".{order}")
