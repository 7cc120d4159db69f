"""What a page consists of: sections with text, figures and tables; nothing here draws or writes yet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class PageFigure:
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
class PageTable:
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
class ColoredRow:
    """A text whose pieces carry a value each.

    Attributes:
        label: before it: whose values they are.
        pieces: of the text, with their blanks.
        values: of the pieces; not a number for none.
        hints: shown as one points at a piece, one a piece; none for none.
        limit: the value of the strongest color, positive.
        signed: whether values may be negative and get another color then.
    """

    label: str
    pieces: Sequence[str]
    values: Sequence[float]
    hints: Sequence[str] = ()
    limit: float = 1.0
    signed: bool = False


@dataclass(frozen=True)
class ColoredText:
    """A text whose background tells a value of each word: on the page as text, as PNG beside it.

    Attributes:
        name: of the file, without its ending.
        title: above it.
        caption: below it.
        rows: the text under one value or several.
    """

    name: str
    title: str
    caption: str
    rows: Sequence[ColoredRow]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: for links.
        title: its heading.
        text: paragraphs.
        figures: figures.
        tables: tables.
        excerpts: pieces of text.
        colored_texts: colored texts.
    """

    name: str
    title: str
    text: list[str] = field(default_factory=list)
    figures: list[PageFigure] = field(default_factory=list)
    tables: list[PageTable] = field(default_factory=list)
    excerpts: list[Excerpt] = field(default_factory=list)
    colored_texts: list[ColoredText] = field(default_factory=list)
