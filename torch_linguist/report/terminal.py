"""What a run shows on the terminal: a header, a line a stage, live progress, samples, a closing table.

Where the output is no terminal (a pipe, a log file) the same facts come as plain lines.
"""

import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Column, Table

from torch_linguist.evaluation import Score
from torch_linguist.trainer.callback import Callback, Fact

PLAIN_SECONDS = 10.0
"""Without a terminal, a stage says how it stands so often."""


class EnduringConsole(Console):
    """A console whose reader may leave (`tl-train | head`, a lost connection): the run goes on without it."""

    def on_broken_pipe(self) -> None:
        """Writes to nowhere from now on, and says so once where errors go."""
        self.quiet = True
        # The interpreter's own flush at its end must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with suppress(OSError):
            os.write(2, b"nobody reads the output any more; the run goes on, see its folder\n")


class TerminalObserver(Callback):
    """Shows a run on a console.

    Args:
        console: where to; None for standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or EnduringConsole(highlight=False, soft_wrap=True)
        self._live = self.console.is_terminal
        self._progress: Progress | None = None
        self._last_line = 0.0

    def header(self, facts: Mapping[str, Mapping[str, Fact]]) -> None:
        if not self._live:
            for subject, entries in facts.items():
                self.console.print(
                    f"{subject}: " + ", ".join(f"{key} {shown(entries[key])}" for key in entries), markup=False
                )
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold cyan", no_wrap=True)
        grid.add_column()
        for subject, entries in facts.items():
            text = "  ".join(f"[dim]{escape(key)}[/] {escape(shown(value))}" for key, value in entries.items())
            grid.add_row(escape(subject), text)
        self.console.print(Panel(grid, title="[bold]torch-linguist[/]", title_align="left", border_style="cyan"))

    def stage_started(self, stage: str, about: str) -> None:
        self._stop_progress()
        if not self._live:
            self.console.print(f"[{stage}] {about}", markup=False)
            self._last_line = time.monotonic()
            return
        self._progress = Progress(
            TextColumn(f"  [cyan]{stage:<8}[/]", table_column=Column(min_width=10, no_wrap=True)),
            BarColumn(bar_width=12, table_column=Column(min_width=12)),
            TaskProgressColumn(table_column=Column(min_width=4, no_wrap=True)),
            # On a narrow terminal the facts are cut, the last ones first, and nothing else.
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=self.console,
            transient=True,
            expand=True,
        )
        self._progress.start()
        self._progress.add_task(escape(about), total=1.0)

    def progressed(self, stage: str, fraction: float, facts: Mapping[str, Fact]) -> None:
        text = "  ".join(f"{LABELS.get(key, key)} {shown(value, key)}" for key, value in facts.items())
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=fraction, description=escape(text))
        elif not self._live and time.monotonic() - self._last_line > PLAIN_SECONDS:
            self._last_line = time.monotonic()
            self.console.print(f"[{stage}] {fraction:.0%}  {text}", markup=False)

    def stage_finished(self, stage: str, verdict: str, seconds: float) -> None:
        self._stop_progress()
        if self._live:
            self.console.print(f"[green]✓[/] [bold]{stage:<8}[/] {escape(verdict)} [dim]({duration(seconds)})[/]")
        else:
            self.console.print(f"[{stage}] done: {verdict} ({duration(seconds)})", markup=False)

    def logged(self, scalars: Mapping[str, float], step: int) -> None:
        if "valid_loss" not in scalars:
            return
        line = f"step {step:,}  valid loss {scalars['valid_loss']:.4f}  perplexity {scalars['valid_perplexity']:.2f}"
        self._line(f"  {line}")

    def sampled(self, samples: Sequence[tuple[str, str]], step: int) -> None:
        for _, text in samples:
            self._line(f"    “{' / '.join(text.splitlines())}”", style="italic dim")

    def noted(self, message: str) -> None:
        self._line(f"note: {message}", style="yellow")

    def close(self) -> None:
        self._stop_progress()

    def _line(self, text: str, style: str | None = None) -> None:
        self.console.print(text, style=style if self._live else None, markup=False)

    def _stop_progress(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


LABELS = {
    "train_loss": "loss",
    "train_perplexity": "perplexity",
    "tokens_per_second": "tokens/s",
    "best_valid_perplexity": "best valid",
    "seconds_left": "left",
}


def closing_table(
    console: Console, scores: Mapping[str, Mapping[str, Score]], artifacts: Mapping[str, str], folder: Path
) -> None:
    """The end of a run: each model's scores by split, and where everything lies.

    Args:
        console: where to.
        scores: by model (or baseline), then by split.
        artifacts: relative paths by name.
        folder: of the run.
    """
    console.print(score_table(scores))
    console.print(f"run folder: {folder}", markup=False)
    for name, path in artifacts.items():
        console.print(f"  {name:<12} {path}", markup=False)


def score_table(scores: Mapping[str, Mapping[str, Score]]) -> Table:
    """Scores by model (or baseline), then by split, as a table of the terminal."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", style="bold", no_wrap=True)
    table.add_column("split")
    for name in ("tokens", "loss", "perplexity", "word\nperplexity", "bits per\nbyte", "OOV"):
        table.add_column(name, justify="right", no_wrap=True)
    for model, splits in scores.items():
        for split, score in splits.items():
            table.add_row(
                model,
                split,
                f"{score.tokens:,}",
                f"{score.loss:.4f}",
                f"{score.perplexity:.2f}",
                f"{score.word_perplexity:.2f}",
                f"{score.bits_per_byte:.4f}",
                f"{score.oov_rate:.2%}",
            )
    return table


def shown(value: Fact, key: str = "") -> str:
    """A fact as a person reads it."""
    if isinstance(value, str):
        return value
    if key == "seconds_left":
        return duration(value)
    if isinstance(value, int) or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if key == "lr" or abs(value) < 0.01 else f"{value:.3f}".rstrip("0").rstrip(".")


def duration(seconds: float) -> str:
    """Seconds as `4.2 s`, `3 min 05 s` or `2 h 10 min`."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
