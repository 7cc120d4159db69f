"""A sweep that was stopped or killed goes on: what has ended stays, what is missing is found out."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch_linguist.sweep.run_process import acquire, release
from torch_linguist.sweep.outcomes import FAILED, INTERRUPTED, Outcome, Run, finished_before
from torch_linguist.sweep.result_table import ResultTable, read_rows

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class State:
    """Where a sweep stands.

    Attributes:
        ended: the outcomes that stay, in the order of their rows.
        waiting: the runs that are still to be made.
    """

    ended: list[Outcome]
    waiting: list[Run]


def take_up(
    table: ResultTable,
    runs: Sequence[Run],
    *,
    retry_failed: bool,
    resumption: Callable[[Path], Sequence[str]],
    say: Callable[[str], None],
) -> State:
    """Finds out what an earlier start of a sweep has left, and puts table and folders in order.

    A row stays unless its run was interrupted (or failed, on demand). A run that finished without a row gets one from
    its summary. What a run has left that did not finish is gone on with if it can be, and else removed.

    Args:
        table: of the sweep; half a row at its end is dropped.
        runs: all of them.
        retry_failed: whether failed runs are made again.
        resumption: from a run's folder to the arguments that let `tl-train` go on there; empty where it cannot.
        say: is told what a person may want to know.

    Raises:
        LinguistError: the table is not what this sweep wrote.
    """
    found = read_rows(table, {run.index: run for run in runs})
    again = {INTERRUPTED, FAILED} if retry_failed else {INTERRUPTED}
    kept = [one for one in found if one.status not in again]
    done = {one.run.index for one in kept}
    failed = {one.run.index for one in found if one.status == FAILED}
    waiting: list[Run] = []
    for run in runs:
        if run.index in done:
            continue
        _wait_for(run, say)
        outcome = finished_before(run)
        if outcome is not None:
            kept.append(outcome)
            continue
        arguments = () if run.index in failed else tuple(resumption(run.folder))
        if not arguments and run.folder.is_dir():
            shutil.rmtree(run.folder)
        waiting.append(replace(run, arguments=(*run.arguments, *arguments)))
    table.replace([one.row() for one in kept])
    return State(kept, waiting)


def _wait_for(run: Run, say: Callable[[str], None]) -> None:
    """Waits for a process that an earlier start left at a run; it was told to end when that start did."""
    told = False
    while True:
        ours, lock = acquire(str(run.log)) if run.log.with_suffix(".lock").is_file() else (True, None)
        if ours:
            release(lock)
            return
        if not told:
            say(f"waiting for run {run.folder.name} of the earlier start, which is still at work")
            told = True
        time.sleep(POLL_SECONDS)
