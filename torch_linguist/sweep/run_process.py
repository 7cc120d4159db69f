"""The process of one run, and the lock that it holds for its lifetime."""

import os
import site
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch_linguist.runs.platform import (
    available_cores,
    group_options,
    interrupt_process,
    kill_process_tree,
    try_lock,
)
from torch_linguist.sweep.outcomes import FINISHED, ProcessExit, SweepRun, read_summary

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Task:
    """A run in plain values, as it is sent to a worker.

    Attributes:
        command: the whole command line.
        folder: absolute path of the run folder.
        log: absolute path of the log file; `.lock`, `.interrupt` and `.kill` lie beside it.
        directory: working directory of the command.
        environment: environment variables added to those of the worker.
    """

    command: tuple[str, ...]
    folder: str
    log: str
    directory: str
    environment: Mapping[str, str] = field(default_factory=dict)


def make_task(run: SweepRun, program: Sequence[str], environment: Mapping[str, str]) -> Task:
    """Return the task of a run."""
    folder, log = str(run.folder.absolute()), str(run.log.absolute())
    return Task((*program, *run.arguments), folder, log, str(Path.cwd()), dict(environment))


def resuming(task: Task) -> Task:
    """Return a task that continues its run where an earlier attempt at it ended."""
    if any(argument.startswith("resume=") for argument in task.command):
        return task
    return replace(task, command=(*task.command, "resume=auto"))


def child_environment(jobs: int, cores: int | None = None) -> dict[str, str]:
    """Return the environment variables of a run: its share of the cores, and the path of this torch_linguist.

    Args:
        jobs: number of runs at a time.
        cores: CPU cores of each run; None divides this machine's cores among the jobs. Variables that the user has
            set keep their values.
    """
    added: dict[str, str] = {}
    if jobs > 1 or cores is not None:
        share = cores_per_run(jobs, cores)
        added = {name: os.environ.get(name, str(share)) for name in THREADS}
    home = str(Path(__file__).resolve().parents[2])
    if home not in (*site.getsitepackages(), site.getusersitepackages()):
        # A checkout that is not installed. `-P` keeps the rest of the working directory off the import path.
        added["PYTHONPATH"] = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    return added


def cores_per_run(jobs: int, cores: int | None = None) -> int:
    """Return how many CPU cores a run may use."""
    return cores if cores is not None else max(1, available_cores() // jobs)


class RunProcess:
    """The process of a run, in a session of its own, so that Ctrl-C reaches it only through the sweep.

    The process holds the lock of its run until it ends, even if the sweep is killed. A sweep that is started again
    waits for it instead of running twice in one folder.

    Args:
        task: the run.
        lock: open file descriptor from `acquire`, passed on to the process; None on systems without such locks.
    """

    def __init__(self, task: Task, lock: int | None) -> None:
        self._start = time.monotonic()
        Path(task.log).parent.mkdir(parents=True, exist_ok=True)
        try:
            with Path(task.log).open("wb") as log:
                self._process = subprocess.Popen(
                    task.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=task.directory,
                    env={**os.environ, **task.environment},
                    pass_fds=() if lock is None else (lock,),
                    **group_options(),
                )
        finally:
            release(lock)

    def poll(self) -> ProcessExit | None:
        """Return how the process ended, or None while it runs."""
        code = self._process.poll()
        return None if code is None else ProcessExit(code, time.monotonic() - self._start)

    def interrupt(self) -> None:
        """Ask the run to save its state and end."""
        if self._process.poll() is None:
            interrupt_process(self._process)

    def kill(self) -> None:
        """End the process and its children at once."""
        if self._process.poll() is None:
            kill_process_tree(self._process)

    def wait(self) -> None:
        """Wait until the process has ended."""
        self._process.wait()


def acquire(log: str) -> tuple[bool, int | None]:
    """Take the lock of a run unless another process holds it.

    Args:
        log: log file of the run; the lock file lies beside it.

    Returns:
        Whether the lock was taken, and the file descriptor that holds it (None on systems without such locks).
    """
    return try_lock(Path(log).with_suffix(".lock"))


def release(lock: int | None) -> None:
    """Release a lock that was not passed to a process."""
    if lock is not None:
        os.close(lock)


def is_finished(task: Task) -> bool:
    """Return whether the run was already finished by a process of an earlier start."""
    return read_summary(Path(task.folder)).get("status") == FINISHED


class RemoteRun:
    """Carries out a run from start to end; this is what the workers of a cluster execute.

    Orders arrive as files beside the log, which every machine that shares the folder can read.
    """

    _process: RunProcess | None = None

    def __call__(self, task: Task) -> ProcessExit:
        """Return how the process of the run ended."""
        while True:
            acquired, lock = acquire(task.log)
            if acquired:
                break
            time.sleep(POLL_SECONDS)
        if is_finished(task):
            release(lock)
            return ProcessExit(0, 0.0)
        interrupted = False
        self._process = process = RunProcess(task, lock)
        try:
            while (ended := process.poll()) is None:
                time.sleep(POLL_SECONDS)
                if order_path(task, "kill").exists():
                    process.kill()
                elif not interrupted and order_path(task, "interrupt").exists():
                    interrupted = True
                    process.interrupt()
        finally:
            process.kill()
            process.wait()
        return ended

    def checkpoint(self, task: Task) -> Any:
        """Let the run save its state; return what continues it.

        submitit calls this shortly before the time limit of a job or when the job is preempted, and then submits the
        result again.
        """
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.interrupt()
            self._process.wait()
        return DelayedSubmission(RemoteRun(), task)


def order_path(task: Task, order: str) -> Path:
    """Return the file that orders a worker to `interrupt` or `kill` its run."""
    return Path(task.log).with_suffix(f".{order}")
