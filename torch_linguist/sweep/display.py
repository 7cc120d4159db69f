"""What the terminal shows of a sweep: lines in files and pipes, a live table on a terminal, and the final table."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from torch_linguist.sweep.engine import SweepCallback
from torch_linguist.sweep.outcomes import FAILED, FINISHED, Outcome, SweepRun
from torch_linguist.sweep.run_progress import RunProgress

if TYPE_CHECKING:
    from rich.live import Live

    from torch_linguist.sweep.sweep import SweepResult

SHOWN_ENDED = 8
"""Runs that have ended and stay in the live table."""


class SweepDisplay(SweepCallback):
    """Shows a sweep on a console.

    On a terminal it draws a live table of the active runs with their current loss, and of the last runs that ended;
    elsewhere it writes a line when a run starts and a line when it ends.

    Args:
        console: where to write.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._total, self._count = 0, 0
        self._running: dict[int, tuple[SweepRun, float]] = {}
        self._progress: Mapping[int, RunProgress] = {}
        self._last: list[Outcome] = []
        self._best: Outcome | None = None
        self._note = ""

    def begun(self, total: int, before: int) -> None:
        self._total, self._count = total, before
        if self._console.is_terminal:
            from rich.live import Live

            # Drawn by this thread alone: a drawing thread would interfere with the processes that are started.
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def run_started(self, run: SweepRun) -> None:
        self._running[run.index] = (run, time.monotonic())
        self._show(f"{'started':<12}{run.folder.name}  {run.label}")

    def run_ended(self, outcome: Outcome) -> None:
        self._count += 1
        self._running.pop(outcome.run.index, None)
        self._last = [outcome, *self._last][:SHOWN_ENDED]
        loss, best = outcome.valid_loss, self._best.valid_loss if self._best else None
        if outcome.status == FINISHED and loss is not None and (best is None or loss < best):
            self._best = outcome
        self._show(self._ended_line(outcome))

    def stopping(self, active: int) -> None:
        if active:
            self.noted(f"stopping: {active} active runs save their state; Ctrl-C again ends them at once")

    def progressed(self, progress: Mapping[int, RunProgress]) -> None:
        self._progress = progress
        if self._live:
            self._live.update(self._table(), refresh=True)

    def noted(self, message: str) -> None:
        self._note = message
        self._show(message)

    def close(self) -> None:
        if self._live:
            self._live.stop()

    def _show(self, line: str) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)
        else:
            self._console.print(line, markup=False, soft_wrap=True)

    def _ended_line(self, outcome: Outcome) -> str:
        perplexity, loss = outcome.valid_perplexity, outcome.valid_loss
        result = outcome.error
        if perplexity is not None:
            result = f"valid perplexity {perplexity:.2f}"
        elif loss is not None:
            # The perplexity overflows float64.
            result = f"valid loss {loss:.4g}"
        start = f"{outcome.status:<12}{outcome.run.folder.name}  {outcome.run.label}  {result}"
        return f"{start}  {outcome.seconds:.0f} s  [{self._count}/{self._total}]"

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, title=f"{self._count} of {self._total} runs", title_justify="left")
        for name in ("run", "values", "status"):
            table.add_column(name, overflow="ellipsis", no_wrap=True)
        for name in ("update", "loss", "valid loss", "seconds"):
            table.add_column(name, justify="right", no_wrap=True)
        for index, (run, begin) in self._running.items():
            progress = self._progress.get(index)
            seconds = f"{time.monotonic() - begin:.0f}"
            stage, step, loss, valid = "starting", "", "", ""
            if progress is not None and progress.stage:
                stage, step = progress.stage, f"{progress.step:,}" if progress.step else ""
                loss = "" if progress.loss is None else f"{progress.loss:.4f}"
                valid = f"{progress.valid_losses[-1]:.4f}" if progress.valid_losses else ""
            table.add_row(run.folder.name, Text(run.label), stage, step, loss, valid, seconds, style="bold")
        for one in self._last:
            valid = "" if one.valid_loss is None else f"{one.valid_loss:.4f}"
            style = "green" if one is self._best else "red" if one.status == FAILED else "dim"
            name, label = one.run.folder.name, Text(one.run.label)
            table.add_row(name, label, one.status, "", "", valid, f"{one.seconds:.0f}", style=style)
        if self._note:
            table.caption = Text(self._note)
        return table


def show_result(result: "SweepResult", console: Console) -> None:
    """Show the runs of a sweep, the best validation perplexity first, and the command that repeats the best run."""
    if not result.outcomes:
        return
    order = sorted(
        result.outcomes,
        key=lambda one: (one.status != FINISHED, one.valid_loss is None, one.valid_loss or 0, one.run.index),
    )
    lines = ["", _outcome_table(order)]
    lines += [f"{one.run.folder.name} failed: {one.error}" for one in order if one.status == FAILED]
    best = order[0] if order[0].status == FINISHED and order[0].valid_loss is not None else None
    if best is not None and result.seeds is not None:
        point = result.seeds.iloc[0]
        spread = f" ± {point['valid_loss_std']:.4f}" if point["count"] > 1 else ""
        best = next(one for one in order if one.run.point == point["point"] and one.status == FINISHED)
        mean = f"{point['valid_loss_mean']:.4f}{spread}"
        lines.append(f"\nbest point over {point['count']} seeds: valid loss {mean}")
    if best is not None:
        lines.append(f"\nbest: {best.run.folder}\n  {best.run.command}")
    lines += [f"table: {result.table}", f"page: {result.page}"]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _outcome_table(order: Sequence[Outcome]) -> Table:
    table = Table(box=None, pad_edge=False)
    for key in ["run", *order[0].run.swept, "status"]:
        table.add_column(Text(key))
    for key in ("parameters", "valid ppl", "test ppl", "seconds"):
        table.add_column(key, justify="right")
    for one in order:
        row = one.row()
        values = [row[name] for name in ("valid_perplexity", "test_perplexity")]
        numbers = [f"{value:.2f}" if isinstance(value, int | float) else "" for value in values]
        parameters = f"{row['parameters']:,}" if row["parameters"] else ""
        swept = [Text(value) for value in one.run.swept.values()]
        table.add_row(row["folder"], *swept, one.status, parameters, *numbers, f"{one.seconds:.0f}")
    return table
