"""The console that everything of unknown origin is written to."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from torch_linguist.runs.visible_text import visible


class SafeConsole(Console):
    """A console that shows control characters in what it is given as visible signs."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            # Control segments are the console's own: cursor movements of a live display.
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
