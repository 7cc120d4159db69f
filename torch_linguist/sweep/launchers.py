"""Where the runs of a sweep are carried out: on this machine, through submitit (SLURM), or on Ray.

With every launcher a run is a `tl-train` process of its own in its own folder, so all launchers leave the same files.
They use the executors of submitit and Ray directly: Hydra's launcher plugins are tied to single versions of Hydra,
take a whole batch at a time, and report the first failure only after the last run.
"""

import importlib
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.sweep.outcomes import ProcessExit
from torch_linguist.sweep.run_process import (
    RemoteRun,
    RunProcess,
    Task,
    acquire,
    is_finished,
    order_path,
    release,
    resuming,
)

LAUNCHERS = ("local", "submitit", "ray")


class Job(Protocol):
    """A run that was handed to a launcher."""

    def poll(self) -> ProcessExit | None:
        """Return how the run ended, or None while it waits or runs."""

    def interrupt(self) -> None:
        """Ask the run to save its state and end."""

    def kill(self) -> None:
        """End the run at once."""


class Launcher(Protocol):
    """Carries out tasks."""

    def start(self, task: Task) -> Job:
        """Hand over a run; return at once."""

    def close(self) -> None:
        """Release the executor; no jobs are left."""


class LocalLauncher:
    """Starts processes on this machine."""

    def start(self, task: Task) -> Job:
        return _LocalJob(task)

    def close(self) -> None:
        return


class _LocalJob:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._process: RunProcess | None = None
        self._exit: ProcessExit | None = None
        self._start()

    def _start(self) -> None:
        acquired, lock = acquire(self._task.log)
        if acquired and is_finished(self._task):
            release(lock)
            self._exit = ProcessExit(0, 0.0)
        elif acquired:
            self._process = RunProcess(self._task, lock)

    def poll(self) -> ProcessExit | None:
        if self._process is None and self._exit is None:
            # A process left by an earlier start still holds the lock of this run.
            self._start()
        return self._exit or (self._process.poll() if self._process else None)

    def interrupt(self) -> None:
        if self._process is None:
            self._exit = self._exit or ProcessExit(128 + signal.SIGINT, 0.0)
        else:
            self._process.interrupt()

    def kill(self) -> None:
        if self._process is None:
            self.interrupt()
        else:
            self._process.kill()


class _RemoteJob:
    """A run on a worker of a cluster. Orders reach it through files."""

    def __init__(self, task: Task, is_done: Callable[[], bool], result: Callable[[], ProcessExit]) -> None:
        self._task, self._is_done, self._result = task, is_done, result
        self._start = time.monotonic()

    def poll(self) -> ProcessExit | None:
        if not self._is_done():
            return None
        try:
            return self._result()
        except Exception as error:  # noqa: BLE001 - each executor has its own errors for a worker that died
            lines = str(error).strip().splitlines()
            reason = f"its worker ended: {type(error).__name__}{': ' if lines else ''}{lines[-1] if lines else ''}"
            return ProcessExit(None, time.monotonic() - self._start, reason)

    def interrupt(self) -> None:
        order_path(self._task, "interrupt").touch()

    def kill(self) -> None:
        order_path(self._task, "kill").touch()


def _carry_out(task: Task) -> ProcessExit:
    return RemoteRun()(task)


class SubmititLauncher:
    """Submits SLURM jobs (or, with `cluster=local`, starts processes) through submitit.

    Shortly before its time limit a run saves its state, and its job is queued again, up to three times
    (`slurm_max_num_timeout`). A job that SLURM queues again, for example after the failure of a node, continues too.

    Args:
        folder: folder for submitit's own files.
        cores: CPU cores of each run.
        options: `cluster` of `submitit.AutoExecutor` and parameters of its `update_parameters`, such as
            `slurm_partition` and `timeout_min`.
    """

    def __init__(self, folder: Path, cores: int, options: Mapping[str, Any]) -> None:
        submitit = _import("submitit")
        chosen = dict(options)
        cluster = chosen.pop("cluster", None)
        chosen = {"cpus_per_task": cores, "timeout_min": 24 * 60, "name": "tl-grid"} | chosen

        def make_executor() -> Any:
            executor = submitit.AutoExecutor(folder=str(folder.absolute()), cluster=cluster)
            executor.update_parameters(**chosen)
            return executor

        self._executor: Any = _checking_options(make_executor, "submitit")

    def start(self, task: Task) -> Job:
        job = self._executor.submit(RemoteRun(), resuming(task))
        return _RemoteJob(task, job.done, job.result)

    def close(self) -> None:
        return


class RayLauncher:
    """Runs tasks on a Ray cluster; without an `address`, starts one on this machine.

    Args:
        jobs: number of runs at a time; a local cluster gets `jobs * cores` CPUs.
        cores: CPU cores of each run.
        options: arguments of `ray.init`, such as `address`.
    """

    def __init__(self, jobs: int, cores: int, options: Mapping[str, Any]) -> None:
        self._ray = ray = _import("ray")
        chosen = {"log_to_driver": False, "logging_level": "error", "include_dashboard": False} | dict(options)
        if "address" not in chosen:
            chosen = {"num_cpus": jobs * cores} | chosen
        self._started_here = not ray.is_initialized()
        if self._started_here:
            _checking_options(lambda: ray.init(**chosen), "ray")
        # A run that dies gets a row in the table. A retry would add a second one.
        self._remote: Any = ray.remote(num_cpus=cores, max_retries=0)(_carry_out)

    def start(self, task: Task) -> Job:
        ray, reference = self._ray, self._remote.remote(task)

        def result() -> ProcessExit:
            ended = ray.get(reference)
            assert isinstance(ended, ProcessExit)
            return ended

        return _RemoteJob(task, lambda: bool(ray.wait([reference], timeout=0)[0]), result)

    def close(self) -> None:
        if self._started_here:
            self._ray.shutdown()


def make_launcher(name: str, folder: Path, jobs: int, cores: int, options: Mapping[str, Any]) -> Launcher:
    """Create a launcher by name.

    Raises:
        ConfigError: the launcher does not exist, or does not accept these options.
        LinguistError: the executor is not installed or cannot be started.
    """
    if name == "submitit":
        return SubmititLauncher(folder / "submitit", cores, options)
    if name == "ray":
        return RayLauncher(jobs, cores, options)
    if name != "local":
        raise ConfigError(f"launcher={name}: must be one of {', '.join(LAUNCHERS)}")
    if options:
        raise ConfigError(f"launcher_options: launcher=local takes none; choose {' or '.join(LAUNCHERS[1:])}")
    return LocalLauncher()


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LinguistError(f'launcher={name}: needs pip install "torch-linguist[{name}]" ({error})') from error


def _checking_options(make: Callable[[], Any], name: str) -> Any:
    try:
        return make()
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise LinguistError(f"launcher={name}: cannot be started: {lines[0]}; check launcher_options") from error
