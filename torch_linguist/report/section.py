"""What a page consists of: sections with text, figures and tables; nothing here draws or writes yet."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Drawing:
    """A figure that is still to be drawn.

    Attributes:
        name: of the file, without its ending.
        title: above it.
        caption: below it: what is seen and how it was made.
        draw: writes a PNG to a path.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Path], None]


@dataclass(frozen=True)
class Table:
    """A table: whole as CSV, its first rows on the page.

    Attributes:
        name: of the file, without its ending.
        title: above it.
        frame: the content; its index is not written.
        caption: below it.
        rows: shown on the page at most; 0 for none.
        shares: columns that are shown as per cent.
        plain: columns whose numbers are names, such as years, and get no separators.
    """

    name: str
    title: str
    frame: pd.DataFrame
    caption: str = ""
    rows: int = 12
    shares: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()


@dataclass(frozen=True)
class Excerpt:
    """A piece of a document.

    Attributes:
        source: where it comes from.
        text: the piece.
    """

    source: str
    text: str


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: for links.
        title: its heading.
        text: paragraphs.
        drawings: figures.
        tables: tables.
        excerpts: pieces of text.
    """

    name: str
    title: str
    text: list[str] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    excerpts: list[Excerpt] = field(default_factory=list)
