"""The folder of a sweep: which sweep it belongs to, who works in it, and what an earlier start left there.

`sweep.json` identifies the sweep, so that the same command line continues in its folder and no other sweep does.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from torch_linguist.errors import LinguistError
from torch_linguist.runs.files import write_json
from torch_linguist.runs.folders import create_run_folder
from torch_linguist.runs.safe_reading import read_json
from torch_linguist.sweep.outcomes import FAILED, INTERRUPTED, Outcome, SweepRun, finished_before
from torch_linguist.sweep.result_table import ResultTable, read_rows
from torch_linguist.sweep.run_process import acquire, release

IDENTITY_FILE = "sweep.json"
LOCK_FILE = "sweep.lock"
POLL_SECONDS = 0.2


def find_sweep_folder(output_dir: Path, name: str | None, identity: Mapping[str, Any]) -> Path:
    """Return the folder of the same sweep if it is incomplete, or create a new folder.

    Args:
        output_dir: parent folder.
        name: name of the folder; None looks for an incomplete folder of this sweep, or generates a name.
        identity: settings that identify the sweep, as JSON values.

    Raises:
        LinguistError: the named folder is not that of a sweep, or belongs to another one.
    """
    if name is None:
        for folder in _incomplete_folders(output_dir, identity):
            if not _is_locked(folder):
                return folder
    elif Path(name).name == name and (output_dir / name).exists():
        _check_identity(output_dir / name, identity)
        return output_dir / name
    return create_run_folder(output_dir, name, "grid")


def write_identity(folder: Path, identity: Mapping[str, Any], *, complete: bool | None = None) -> None:
    """Write `sweep.json`.

    Args:
        folder: folder of the sweep.
        identity: settings that identify the sweep.
        complete: whether every run has ended; None keeps an existing file and leaves the question open.
    """
    if complete is None and (folder / IDENTITY_FILE).is_file():
        return
    write_json(folder / IDENTITY_FILE, {**identity} if complete is None else {**identity, "complete": complete})


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Hold the lock of a sweep's folder.

    Raises:
        LinguistError: another process holds it.
    """
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LinguistError(
            f"{folder}: another tl-grid is using this folder; wait for it, or choose another name="
        ) from None
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class SweepState:
    """What has been done of a sweep.

    Attributes:
        ended: outcomes to keep, in the order of their rows.
        waiting: runs still to be made.
    """

    ended: list[Outcome]
    waiting: list[SweepRun]


def recover(
    table: ResultTable,
    runs: Sequence[SweepRun],
    *,
    retry_failed: bool,
    resume_arguments: Callable[[Path], Sequence[str]],
    note: Callable[[str], None],
) -> SweepState:
    """Find out what an earlier start of a sweep left, and clean up its table and folders.

    A row stays unless its run was interrupted (or failed, if requested). A run that finished without a row gets one
    from its summary. An unfinished run is resumed if possible; otherwise its folder is removed.

    Args:
        table: table of the sweep; a partial row at its end is dropped.
        runs: all runs of the sweep.
        retry_failed: whether failed runs are made again.
        resume_arguments: maps a run folder to the arguments that resume the run; empty if it cannot be resumed.
        note: called with messages for the user.

    Raises:
        LinguistError: the table was not written by this sweep.
    """
    found = read_rows(table, {run.index: run for run in runs})
    repeated = {INTERRUPTED, FAILED} if retry_failed else {INTERRUPTED}
    kept = [one for one in found if one.status not in repeated]
    done = {one.run.index for one in kept}
    failed = {one.run.index for one in found if one.status == FAILED}
    waiting: list[SweepRun] = []
    for run in runs:
        if run.index in done:
            continue
        _wait_for(run, note)
        outcome = finished_before(run)
        if outcome is not None:
            kept.append(outcome)
            continue
        arguments = () if run.index in failed else tuple(resume_arguments(run.folder))
        if not arguments and run.folder.is_dir():
            shutil.rmtree(run.folder)
        waiting.append(replace(run, arguments=(*run.arguments, *arguments)))
    table.replace([one.row() for one in kept])
    return SweepState(kept, waiting)


def _wait_for(run: SweepRun, note: Callable[[str], None]) -> None:
    """Wait for a process that an earlier start left; it was signaled to end when that start ended."""
    noted = False
    while run.log.with_suffix(".lock").is_file():
        acquired, lock = acquire(str(run.log))
        if acquired:
            release(lock)
            return
        if not noted:
            note(f"waiting for run {run.folder.name} of the earlier start, which is still running")
            noted = True
        time.sleep(POLL_SECONDS)


def read_identity(folder: Path) -> dict[str, Any] | None:
    """Return the content of `sweep.json`, or None if it is missing or damaged."""
    try:
        content = read_json(folder / IDENTITY_FILE)
    except LinguistError:
        return None
    return content if isinstance(content, dict) else None


def _check_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    found = read_identity(folder)
    if found is None:
        raise LinguistError(f"{folder}: already exists and is not the folder of a sweep; choose another name=")
    for key, value in identity.items():
        if found.get(key) != value:
            raise LinguistError(
                f"{folder}: belongs to another sweep ({_difference(key, found.get(key), value)}); "
                "choose another name=, or give the same overrides to continue it"
            )


def _incomplete_folders(output_dir: Path, identity: Mapping[str, Any]) -> list[Path]:
    """Return the folders of this sweep that are not marked complete, the newest first."""
    folders = []
    for folder in (path.parent for path in output_dir.glob(f"*/{IDENTITY_FILE}")):
        found = read_identity(folder)
        if found is not None and not found.get("complete") and all(found.get(k) == v for k, v in identity.items()):
            folders.append(folder)
    return sorted(folders, key=lambda one: ((one / IDENTITY_FILE).stat().st_mtime_ns, one.name), reverse=True)


def _is_locked(folder: Path) -> bool:
    try:
        with sole_owner(folder):
            return False
    except LinguistError:
        return True


def _difference(key: str, found: Any, given: Any) -> str:
    if isinstance(found, list) and isinstance(given, list):
        only = [*(f"without {line}" for line in given if line not in found)]
        only += [f"with {line}" for line in found if line not in given]
        return ", ".join(map(str, only[:3])) or f"{key} in another order"
    return f"{key}={found}, not {given}"
