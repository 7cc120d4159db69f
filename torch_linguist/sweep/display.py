"""What a person sees of a sweep while it runs, and at its end."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_linguist.sweep.engine import Audience
from torch_linguist.sweep.run_progress import Watch
from torch_linguist.sweep.outcomes import FAILED, FINISHED, Outcome, Run

if TYPE_CHECKING:
    from rich.table import Table

SHOWN_ENDED = 8


class Lines(Audience):
    """A line a start and a line an end: for files and pipes.

    Args:
        total: runs of the sweep; None where a search has no fixed number.
        before: runs that had ended before this start.
    """

    def __init__(self, total: int, before: int = 0) -> None:
        self.total, self.count = total, before

    def started(self, run: Run) -> None:
        self.say(f"{'started':<12}{run.folder.name}  {run.label}")

    def ended(self, outcome: Outcome) -> None:
        self.count += 1
        self.say(_ended_line(outcome, self.count, self.total))

    def stopping(self, active: int) -> None:
        if active:
            self.say(f"stopping: {active} running save what they have; Ctrl-C again ends them at once")

    def say(self, line: str) -> None:
        """Prints a line."""
        print(line, flush=True)

    def close(self) -> None:
        """Ends the display."""


class Live(Lines):
    """A table that lives: the runs at work with their current loss, and the last ones that ended.

    Args:
        total: runs of the sweep.
        before: runs that had ended before this start.
    """

    def __init__(self, total: int, before: int = 0) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        super().__init__(total, before)
        self._running: dict[int, tuple[Run, float]] = {}
        self._watches: Mapping[int, Watch] = {}
        self._last: list[Outcome] = []
        self._best: Outcome | None = None
        self._note = ""
        # Drawn by us alone: a thread of its own would be in the way of the processes that are started.
        self._live = RichLive(console=Console(highlight=False), auto_refresh=False, transient=True)
        self._live.start()

    def started(self, run: Run) -> None:
        self._running[run.index] = (run, time.monotonic())
        self._draw()

    def ended(self, outcome: Outcome) -> None:
        self.count += 1
        self._running.pop(outcome.run.index, None)
        self._last = [outcome, *self._last][:SHOWN_ENDED]
        loss, best = outcome.valid_loss, self._best.valid_loss if self._best else None
        if outcome.status == FINISHED and loss is not None and (best is None or loss < best):
            self._best = outcome
        self._draw()

    def looked(self, watches: Mapping[int, Watch]) -> None:
        self._watches = watches
        self._draw()

    def say(self, line: str) -> None:
        self._note = line
        self._draw()

    def close(self) -> None:
        self._live.stop()

    def _draw(self) -> None:
        self._live.update(self._table(), refresh=True)

    def _table(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, title=f"{self.count} of {self.total} runs", title_justify="left")
        for name in ("run", "values", "status"):
            table.add_column(name, overflow="ellipsis", no_wrap=True)
        for name in ("update", "loss", "valid loss", "seconds"):
            table.add_column(name, justify="right", no_wrap=True)
        for index, (run, begin) in self._running.items():
            watch = self._watches.get(index)
            seconds = f"{time.monotonic() - begin:.0f}"
            stage, step, loss, valid = "starting", "", "", ""
            if watch is not None and watch.stage:
                stage, step = watch.stage, f"{watch.step:,}" if watch.step else ""
                loss = "" if watch.loss is None else f"{watch.loss:.4f}"
                valid = f"{watch.valid_losses[-1]:.4f}" if watch.valid_losses else ""
            table.add_row(run.folder.name, Text(run.label), stage, step, loss, valid, seconds, style="bold")
        for one in self._last:
            valid = "" if one.valid_loss is None else f"{one.valid_loss:.4f}"
            style = "green" if one is self._best else "red" if one.status == FAILED else "dim"
            name, label = one.run.folder.name, Text(one.run.label)
            table.add_row(name, label, one.status, "", "", valid, f"{one.seconds:.0f}", style=style)
        if self._note:
            table.caption = Text(self._note)
        return table


def make_screen(total: int, before: int) -> Lines:
    """A live table on a terminal, lines elsewhere."""
    return Live(total, before) if sys.stdout.isatty() else Lines(total, before)


def show_outcomes(outcomes: Sequence[Outcome], path: Path, means: Any = None) -> None:
    """Prints the runs as a table, the best validation perplexity first, and how to repeat the best.

    Args:
        outcomes: of the runs that ended.
        path: of the CSV file.
        means: a row a point over its seeds, the best first; None where every point has one.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    order = sorted(
        outcomes, key=lambda one: (one.status != FINISHED, one.valid_loss is None, one.valid_loss or 0, one.run.index)
    )
    table = Table(box=None, pad_edge=False)
    for key in ["run", *(outcomes[0].run.swept if outcomes else ()), "status"]:
        table.add_column(key)
    for key in ("parameters", "valid ppl", "test ppl", "seconds"):
        table.add_column(key, justify="right")
    for one in order:
        row = one.row()
        numbers = (f"{row['parameters']:,}" if row["parameters"] else "", *map(_perplexity, _perplexities(row)))
        table.add_row(row["folder"], *one.run.swept.values(), one.status, *numbers, f"{one.seconds:.0f}")
    console.print()
    console.print(table)
    for one in order:
        if one.status == FAILED:
            console.print(f"{one.run.folder.name} failed: {one.error}", markup=False)
    best = order[0] if order and order[0].status == FINISHED and order[0].valid_loss is not None else None
    if best is not None and means is not None:
        point = means.iloc[0]
        spread = f" ± {point['valid_loss_std']:.4f}" if point["count"] > 1 else ""
        best = next(one for one in order if one.run.point == point["point"] and one.status == FINISHED)
        mean = f"{point['valid_loss_mean']:.4f}{spread}"
        console.print(f"\nbest point over {point['count']} seeds: valid loss {mean}", markup=False)
    if best is not None:
        console.print(f"\nbest: {best.run.folder}\n  {best.run.command}", markup=False)
    console.print(f"table: {path}", markup=False)


def _ended_line(outcome: Outcome, count: int, total: int) -> str:
    perplexity, loss = outcome.valid_perplexity, outcome.valid_loss
    result = outcome.error
    if perplexity is not None:
        result = f"valid perplexity {perplexity:.2f}"
    elif loss is not None:
        # Too large for a perplexity in float64.
        result = f"valid loss {loss:.4g}"
    run = outcome.run
    return f"{outcome.status:<12}{run.folder.name}  {run.label}  {result}  {outcome.seconds:.0f} s  [{count}/{total}]"


def _perplexities(row: dict[str, Any]) -> tuple[Any, Any]:
    return row["valid_perplexity"], row["test_perplexity"]


def _perplexity(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else ""


__all__ = ["Lines", "Live", "make_screen", "show_outcomes"]
