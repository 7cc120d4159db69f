"""Terminal output of a run: header, one line per stage, fit table, live progress, samples, closing report.

Output to a pipe or a log file has the same content as plain lines.
"""

import math
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Column, Table
from rich.text import Text

from torch_linguist.evaluation import Score
from torch_linguist.report.console import SafeConsole
from torch_linguist.runs.output_encoding import tolerate_encoding
from torch_linguist.trainer.callback import Callback, Fact

PLAIN_SECONDS = 10.0
"""Time between two progress lines where the output is not a terminal."""

BAR = 10
"""Width of the progress bar, in characters."""

FIT_COLUMNS = (("step", 8), ("train loss", 10), ("valid loss", 10), ("perplexity", 10), ("tokens/s", 9), ("time", 12))
"""Columns of the fit table with their widths; 70 characters with the mark for the best row."""


class EnduringConsole(SafeConsole):
    """A console that outlives its reader (`tl-train | head`, a lost connection) and any encoding of the output."""

    def __init__(self, **options: Any) -> None:
        if options.get("file") is None:
            tolerate_encoding(sys.stdout)
        super().__init__(**options)

    def on_broken_pipe(self) -> None:
        """Discard all further output, and say so once on standard error."""
        self.quiet = True
        # The flush at the exit of the interpreter must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with suppress(OSError):
            os.write(2, b"nobody reads the output any more; the run continues, see its folder\n")


class TerminalObserver(Callback):
    """Shows a run on a console.

    Args:
        console: where to print; None for standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or EnduringConsole(highlight=False)
        self._live = self.console.is_terminal
        self._progress: Progress | None = None
        self._last_line = 0.0
        self._latest: dict[str, float] = {}
        self._best = math.inf

    def header(self, facts: Mapping[str, Mapping[str, Fact]]) -> None:
        if not self._live:
            for subject, entries in facts.items():
                self._line(f"{subject}: " + ", ".join(f"{key} {shown(entries[key])}".strip() for key in entries))
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold cyan", no_wrap=True)
        grid.add_column()
        width = self.console.width - max(map(len, facts), default=0) - 6
        for subject, entries in facts.items():
            grid.add_row(escape(subject), _packed(entries, width))
        self.console.print(Panel(grid, title="[bold]torch-linguist[/]", title_align="left", border_style="cyan"))

    def stage_started(self, stage: str, about: str) -> None:
        self._stop_progress()
        self._latest, self._best = {}, math.inf
        if not self._live:
            self._line(f"[{stage}] {about}")
            self._last_line = time.monotonic()
            return
        self._progress = Progress(
            TextColumn(f"  [cyan]{escape(stage):<8}[/]", table_column=Column(min_width=10, no_wrap=True)),
            BarColumn(bar_width=BAR, table_column=Column(min_width=BAR)),
            TaskProgressColumn(table_column=Column(min_width=4, no_wrap=True)),
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=self.console,
            transient=True,
            expand=True,
        )
        self._progress.start()
        self._progress.add_task(escape(about), total=1.0)

    def progressed(self, stage: str, fraction: float, facts: Mapping[str, Fact]) -> None:
        if self._progress is not None:
            text = progress_text(facts, self.console.width - BAR - 17)
            self._progress.update(self._progress.task_ids[0], completed=fraction, description=escape(text))
        elif not self._live and time.monotonic() - self._last_line > PLAIN_SECONDS:
            self._last_line = time.monotonic()
            self._line(f"[{stage}] {fraction:.0%}  {progress_text(facts)}")

    def stage_finished(self, stage: str, verdict: str, seconds: float) -> None:
        self._stop_progress()
        if not self._live:
            self._line(f"[{stage}] done: {verdict} ({duration(seconds)})")
            return
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column()
        grid.add_row(f"[green]✓[/] [bold]{escape(stage):<8}[/]", f"{escape(verdict)} [dim]({duration(seconds)})[/]")
        self.console.print(grid)

    def logged(self, scalars: Mapping[str, float], step: int) -> None:
        first = "valid_loss" not in self._latest
        self._latest |= scalars
        if "valid_loss" not in scalars:
            return
        if first:
            self._line("  " + " ".join(f"{name:>{width}}" for name, width in FIT_COLUMNS), style="bold")
        best = scalars["valid_loss"] < self._best
        self._best = min(self._best, scalars["valid_loss"])
        self._line("  " + fit_row(self._latest, step) + (" ★" if best else ""), style="green" if best else None)

    def sampled(self, samples: Sequence[tuple[str, str]], step: int) -> None:
        for _, text in samples:
            self._line(f"    “{' / '.join(text.splitlines())}”", style="italic dim")

    def noted(self, message: str) -> None:
        self._line(f"note: {message}", style="yellow")

    def close(self) -> None:
        self._stop_progress()

    def _line(self, text: str, style: str | None = None) -> None:
        # A terminal wraps between words; a log file keeps lines whole.
        self.console.print(text, style=style if self._live else None, markup=False, soft_wrap=not self._live)

    def _stop_progress(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _packed(entries: Mapping[str, Fact], width: int) -> Text:
    """Names and values on as few lines of a width as possible, no name apart from its value."""
    text, used = Text(), 0
    for key, value in entries.items():
        pair = f"{key} {shown(value)}".strip()
        if used and used + 2 + len(pair) > width:
            text.append("\n")
            used = 0
        text.append("  " if used else "")
        text.append(key, style="dim")
        text.append(pair[len(key) :])
        used += len(pair) + (2 if used else 0)
    return text


def fit_row(scalars: Mapping[str, float], step: int) -> str:
    """Return a row of the fit table: the latest scalars, aligned as `FIT_COLUMNS`."""
    missing = math.nan
    cells = (
        f"{step:,}",
        _fixed(scalars.get("train_loss", missing)),
        _fixed(scalars["valid_loss"]),
        large_number(scalars["valid_perplexity"]),
        large_number(scalars.get("tokens_per_second", missing), digits=0),
        duration(scalars["seconds"]) if "seconds" in scalars else "–",
    )
    return " ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, FIT_COLUMNS, strict=True))


def _fixed(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"


def progress_text(facts: Mapping[str, Fact], width: int | None = None) -> str:
    """Return the facts beside the progress bar, the most important first, as many as fit.

    Args:
        facts: results of the moment by name.
        width: available characters; None for no limit.
    """
    ordered = sorted(facts, key=lambda key: PRIORITY.index(key) if key in PRIORITY else len(PRIORITY))
    text = ""
    for key in ordered:
        further = f"{text}  {_progress_fact(key, facts[key])}" if text else _progress_fact(key, facts[key])
        if width is not None and len(further) > width:
            break
        text = further
    return text


PRIORITY = ("best_valid_perplexity", "tokens_per_second", "seconds_left", "train_loss", "train_perplexity", "lr")
"""Order of the facts beside the progress bar. At 80 columns, at least the first three fit."""


def _progress_fact(key: str, value: Fact) -> str:
    if isinstance(value, str):
        return f"{key} {value}"
    if key == "tokens_per_second":
        return f"{value / 1000:,.0f}k tokens/s" if 100_000 <= value < 1e7 else f"{large_number(value, 0)} tokens/s"
    if key == "seconds_left":
        return f"{duration(value)} left"
    if key.endswith("perplexity"):
        return f"{'best valid' if key.startswith('best') else 'perplexity'} {large_number(value)}"
    return f"{'loss' if key == 'train_loss' else key} {shown(value, key)}"


def closing_table(
    console: Console,
    scores: Mapping[str, Mapping[str, Score]],
    artifacts: Mapping[str, str],
    folder: Path,
    verdict: str | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Print the end of a run: scores, what qualifies them, a verdict, and the commands to run next.

    Args:
        console: where to print.
        scores: scores by model (or baseline) and split.
        artifacts: relative paths by name.
        folder: run folder.
        verdict: sentence that compares the model with its baselines; None for none.
        notes: sentences on the corpus without which the scores would mislead.
    """
    if scores:
        console.print(score_table(scores))
        for note in notes:
            console.print(f"note: {note}", markup=False, soft_wrap=not console.is_terminal)
    if verdict:
        console.print(verdict, markup=False, soft_wrap=not console.is_terminal)
    console.print(f"\nrun folder: {folder}", markup=False, soft_wrap=True)
    commands = [["tl-generate", str(folder)], ["tl-analyze", str(folder)]] if "best" in artifacts else []
    if "tensorboard" in artifacts:
        commands.append(["tensorboard", "--logdir", str(folder / artifacts["tensorboard"])])
    for command in commands:
        # Commands are never wrapped, so that they can be copied.
        console.print(
            f"  {shlex.join(command)}", markup=False, soft_wrap=True, style="cyan" if console.is_terminal else None
        )


class PlainTable(Table):
    """A table that shows text as it is: names such as `m[lr=1]` are not markup."""

    def add_row(self, *renderables: Any, **options: Any) -> None:
        """Add a row; strings are not parsed."""
        super().add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in renderables), **options)


def plain_table(left: Sequence[str], right: Sequence[str]) -> PlainTable:
    """Return an empty table for the terminal.

    Args:
        left: headings of the left-aligned columns; the first is bold.
        right: headings of the right-aligned columns.
    """
    table = PlainTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for place, name in enumerate(left):
        # Where the terminal is narrow, a long name wraps; numbers are never cut.
        table.add_column(Text(name), style="" if place else "bold", no_wrap=place > 0, overflow="fold")
    for name in right:
        table.add_column(Text(name), justify="right", no_wrap=True)
    return table


def score_table(scores: Mapping[str, Mapping[str, Score]]) -> Table:
    """Return scores by model (or baseline) and split as a table for the terminal.

    Example:
        >>> score_table({"bigram": {"test": score(model, corpus.test)}}).row_count
        1
    """
    table = plain_table(
        ["model", "split"], ["tokens", "loss", "perplexity", "word\nperplexity", "bits per\nbyte", "OOV"]
    )
    for model, splits in scores.items():
        for split, score in splits.items():
            table.add_row(
                model,
                split,
                f"{score.tokens:,}",
                f"{score.loss:.4f}",
                large_number(score.perplexity),
                large_number(score.word_perplexity),
                f"{score.bits_per_byte:.4f}",
                f"{score.oov_rate:.2%}",
            )
    return table


def large_number(value: float, digits: int = 2) -> str:
    """Format a positive number with sensible digits: 93.21, 12,346, 1.2e+09."""
    if not math.isfinite(value):
        return "inf" if value == math.inf else "–"
    if value >= 1e7:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.{digits}f}"


def shown(value: Fact, key: str = "") -> str:
    """Format a fact for reading."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if key == "lr" or abs(value) < 0.01 else f"{value:.3f}".rstrip("0").rstrip(".")


def duration(seconds: float) -> str:
    """Format seconds as `4.2 s`, `3 min 05 s` or `2 h 10 min`."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
