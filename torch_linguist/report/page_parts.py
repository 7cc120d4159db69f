"""Content of a page: sections with findings, text, figures and tables. Nothing here draws or writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class PageFigure:
    """A figure that has not been drawn yet.

    Attributes:
        name: unique name; the page derives the file name from it.
        title: heading above the figure.
        caption: what the figure shows and how it was made.
        draw: function that writes the figure as PNG to a path.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Path], None]


@dataclass(frozen=True)
class PageTable:
    """A table: complete as CSV, its first rows on the page.

    Attributes:
        name: unique name; the page derives the file name from it.
        title: heading above the table.
        frame: content; the index is not written.
        caption: text below the table.
        rows: maximum number of rows on the page; 0 writes the CSV only.
        shares: columns shown as percentages.
        plain: columns whose numbers are names, such as years, and get no thousands separators.
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
        source: where the piece comes from.
        text: the piece.
    """

    source: str
    text: str


@dataclass(frozen=True)
class ColoredRow:
    """A text with one value per piece.

    Attributes:
        label: heading of the row.
        pieces: consecutive pieces of the text, with their spaces.
        values: one value per piece; NaN for none.
        hints: one tooltip per piece; empty for no tooltips.
        limit: absolute value shown in the strongest color, positive.
        signed: whether negative values get a color of their own.
    """

    label: str
    pieces: Sequence[str]
    values: Sequence[float]
    hints: Sequence[str] = ()
    limit: float = 1.0
    signed: bool = False


@dataclass(frozen=True)
class ColoredText:
    """A text whose background colors show one value per word: as text on the page, and as a PNG file.

    Attributes:
        name: unique name; the page derives the file name from it.
        title: heading above the text.
        caption: text below.
        rows: the same text under one or more sets of values.
    """

    name: str
    title: str
    caption: str
    rows: Sequence[ColoredRow]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: link target.
        title: heading.
        text: paragraphs.
        figures: figures.
        tables: tables.
        excerpts: pieces of text.
        colored_texts: colored texts.
        findings: main results, one sentence each; the page lists them at the top with a link to the section.
        notes: paragraphs on the method, folded away.
    """

    name: str
    title: str
    text: list[str] = field(default_factory=list)
    figures: list[PageFigure] = field(default_factory=list)
    tables: list[PageTable] = field(default_factory=list)
    excerpts: list[Excerpt] = field(default_factory=list)
    colored_texts: list[ColoredText] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """A page: findings, sections and the commands to run next.

    Attributes:
        title: heading of the page.
        subtitle: line below the heading.
        sections: parts of the page, in order.
        key: short name to what it stands for.
        commands: commands to run next, as (command, purpose).
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
    key: dict[str, str] = field(default_factory=dict)
    commands: Sequence[tuple[str, str]] = ()
