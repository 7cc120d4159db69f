"""Where the runs of a sweep are carried out: here, or by an existing engine: joblib's loky, submitit (SLURM), Ray.

Whichever it is, a run is a `tl-train` process of its own in its own folder, so all of them leave the same files. The
engines' executors are used themselves; Hydra's launcher plugins are tied to single versions of Hydra, take a whole
batch at a time and report the first failure after the last run.
"""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.sweep.run_process import Child, Task, acquire, is_finished, make_run, order_path, release
from torch_linguist.sweep.outcomes import Ended

LAUNCHERS = ("local", "joblib", "submitit", "ray")


class Job(Protocol):
    """A run that was handed over."""

    def poll(self) -> Ended | None:
        """How it ended; None while it runs or waits."""

    def interrupt(self) -> None:
        """Asks it to save what it has and end."""

    def kill(self) -> None:
        """Ends it at once."""


class Launcher(Protocol):
    """Carries out tasks."""

    def start(self, task: Task) -> Job:
        """Hands a run over; returns at once."""

    def close(self) -> None:
        """Gives back what was taken; no job is left."""


class LocalLauncher:
    """Processes of this machine."""

    def start(self, task: Task) -> Job:
        return _LocalJob(task)

    def close(self) -> None:
        return


class _LocalJob:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._child: Child | None = None
        self._ended: Ended | None = None
        self._start()

    def _start(self) -> None:
        ours, lock = acquire(self._task.log)
        if ours and is_finished(self._task):
            release(lock)
            self._ended = Ended(0, 0.0)
        elif ours:
            self._child = Child(self._task, lock)

    def poll(self) -> Ended | None:
        if self._child is None and self._ended is None:
            # A process that an earlier start left behind is still at this run.
            self._start()
        return self._ended or (self._child.poll() if self._child else None)

    def interrupt(self) -> None:
        if self._child is None:
            self._ended = self._ended or Ended(128 + signal.SIGINT, 0.0)
        else:
            self._child.interrupt()

    def kill(self) -> None:
        if self._child is None:
            self.interrupt()
        else:
            self._child.kill()


class _FutureJob:
    """A run at a worker; orders reach it through files."""

    def __init__(self, task: Task, is_done: Callable[[], bool], result: Callable[[], Ended]) -> None:
        self._task, self._is_done, self._result = task, is_done, result
        self._begin = time.monotonic()

    def poll(self) -> Ended | None:
        if not self._is_done():
            return None
        try:
            return self._result()
        except Exception as error:  # noqa: BLE001 - each engine has errors of its own for a worker that died
            lines = str(error).strip().splitlines()
            what = f"its worker ended: {type(error).__name__}{': ' if lines else ''}{lines[-1] if lines else ''}"
            return Ended(None, time.monotonic() - self._begin, what)

    def interrupt(self) -> None:
        order_path(self._task, "interrupt").touch()

    def kill(self) -> None:
        order_path(self._task, "kill").touch()


class JoblibLauncher:
    """Worker processes of this machine, by joblib's executor (loky).

    Args:
        jobs: workers.
        options: of `get_reusable_executor`.
    """

    def __init__(self, jobs: int, options: Mapping[str, Any]) -> None:
        executors = _import("joblib.externals.loky", "joblib")
        self._make: Callable[[], Any] = lambda: _with_options(
            lambda: executors.get_reusable_executor(max_workers=jobs, reuse=False, **options), "joblib"
        )
        self._executor = self._make()

    def start(self, task: Task) -> Job:
        try:
            future = self._executor.submit(make_run, task)
        except RuntimeError:
            # One worker that dies makes the executor refuse everything after it.
            self._executor = self._make()
            future = self._executor.submit(make_run, task)
        return _FutureJob(task, future.done, future.result)

    def close(self) -> None:
        self._executor.shutdown(wait=True, kill_workers=True)


class SubmititLauncher:
    """SLURM jobs (or, with `cluster=local`, processes) by submitit.

    Args:
        folder: takes submitit's own files.
        cores: of each run.
        options: `cluster` of `submitit.AutoExecutor`, and anything of its `update_parameters`, such as
            `slurm_partition` and `timeout_min`.
    """

    def __init__(self, folder: Path, cores: int, options: Mapping[str, Any]) -> None:
        submitit = _import("submitit", "submitit")
        chosen = dict(options)
        cluster = chosen.pop("cluster", None)
        chosen = {"cpus_per_task": cores, "timeout_min": 24 * 60, "name": "tl-grid"} | chosen

        def make() -> Any:
            executor = submitit.AutoExecutor(folder=str(folder.absolute()), cluster=cluster)
            executor.update_parameters(**chosen)
            return executor

        self._executor: Any = _with_options(make, "submitit")

    def start(self, task: Task) -> Job:
        job = self._executor.submit(make_run, task)
        return _FutureJob(task, job.done, job.result)

    def close(self) -> None:
        return


class RayLauncher:
    """Tasks of a Ray cluster; without an `address` one is started on this machine.

    Args:
        jobs: runs at a time: so many workers' cores are asked for.
        cores: of each run.
        options: of `ray.init`, such as `address`.
    """

    def __init__(self, jobs: int, cores: int, options: Mapping[str, Any]) -> None:
        self._ray = ray = _import("ray", "ray")
        chosen = {"log_to_driver": False, "logging_level": "error", "include_dashboard": False} | dict(options)
        if "address" not in chosen:
            chosen = {"num_cpus": jobs * cores} | chosen
        self._ours = not ray.is_initialized()
        if self._ours:
            _with_options(lambda: ray.init(**chosen), "ray")
        # A run that dies is a row; made again, it would be two.
        self._remote: Any = ray.remote(num_cpus=cores, max_retries=0)(make_run)

    def start(self, task: Task) -> Job:
        ray, reference = self._ray, self._remote.remote(task)
        return _FutureJob(
            task, lambda: bool(ray.wait([reference], timeout=0)[0]), lambda: _as_ended(ray.get(reference))
        )

    def close(self) -> None:
        if self._ours:
            self._ray.shutdown()


def make_launcher(name: str, folder: Path, jobs: int, cores: int, options: Mapping[str, Any]) -> Launcher:
    """The launcher of a name.

    Args:
        name: one of `LAUNCHERS`.
        folder: of the sweep.
        jobs: runs at a time.
        cores: of each run.
        options: of the engine.

    Raises:
        ConfigError: there is no such launcher, or it does not take these options.
        LinguistError: its engine is not installed or cannot be started.
    """
    if name == "joblib":
        return JoblibLauncher(jobs, options)
    if name == "submitit":
        return SubmititLauncher(folder / "submitit", cores, options)
    if name == "ray":
        return RayLauncher(jobs, cores, options)
    if name != "local":
        raise ConfigError(f"launcher={name}: must be one of {', '.join(LAUNCHERS)}")
    if options:
        raise ConfigError(f"launcher_options: launcher=local takes none; name one of {', '.join(LAUNCHERS[1:])}")
    return LocalLauncher()


def _import(module: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LinguistError(
            f'launcher={extra}: needs an extra: pip install "torch-linguist[{extra}]" ({error})'
        ) from error


def _with_options(make: Callable[[], Any], name: str) -> Any:
    try:
        return make()
    except Exception as error:
        lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
        raise LinguistError(f"launcher={name}: cannot be started: {lines[0]}; look at launcher_options") from error


def _as_ended(value: Any) -> Ended:
    assert isinstance(value, Ended)
    return value
