"""Safe output to the terminal: a console that shows control characters, and a line of progress."""

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from torch_linguist.runs.visible_text import visible

WIDTH = 110
"""Width of tables in a pipe or a file, in characters."""


class SafeConsole(Console):
    """A console that replaces control characters in its input by visible signs."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            # Control segments are the console's own: cursor movements of a live display.
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def make_console() -> SafeConsole:
    """Return a console on standard output; in a pipe or file, it is wide enough for the tables."""
    console = SafeConsole(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    return console


class ProgressLine:
    """The progress of a long computation as one line, on a terminal's standard error only."""

    def __init__(self) -> None:
        self._shown = ("", -1)

    def __call__(self, what: str, fraction: float) -> None:
        """Show a description and a fraction from 0 to 1; the line disappears at 1."""
        now = (what, int(100 * fraction))
        if now == self._shown or not sys.stderr.isatty():
            return
        self._shown = now
        line = "" if fraction >= 1 else f"{visible(what)}: {now[1]}%"
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
