"""Colored texts: the background color of each word shows its value, on the page and as a figure."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from torch_linguist.report.figure_style import WIDTH, new_figure, printable
from torch_linguist.report.fonts import font_families
from torch_linguist.report.page_parts import ColoredRow, ColoredText

HIGH = (240, 145, 95)
"""Strongest color of positive values: orange, with a contrast above 6 to black text."""

LOW = (125, 175, 235)
"""Strongest color of negative values: blue, distinct from orange for color-blind readers too."""

COLUMNS = 78
"""Characters per line of the figure."""

LINE = 0.185
"""Height of a line, in inches."""

Cell = tuple[int, int, str, float]
"""A piece in the figure: line, column, text and value."""


def shade(value: float, limit: float, signed: bool) -> str | None:
    """Return the background color of a value as `#rrggbb`; None where it would be invisible.

    Args:
        value: value of a piece.
        limit: absolute value that gets the strongest color; larger values get no stronger one.
        signed: whether negative values get a color.

    Example:
        >>> shade(1.0, limit=2.0, signed=False)
        '#f8c8af'
    """
    if not math.isfinite(value) or limit <= 0 or (value < 0 and not signed):
        return None
    strength = min(1.0, abs(value) / limit)
    if strength < 0.03:
        return None
    mixed = (round(255 + (full - 255) * strength) for full in (HIGH if value > 0 else LOW))
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def colored_pieces(row: ColoredRow) -> list[dict[str, object]]:
    """Return the pieces of a row for the page: text, color, tooltip, and the spaces and line breaks around.

    Example:
        >>> from torch_linguist.report.page_parts import ColoredRow
        >>> row = ColoredRow("surprise", ["the", " cat"], [0.0, 1.0])
        >>> [piece["color"] for piece in colored_pieces(row)]
        [None, '#f0915f']
    """
    hints: Sequence[str] = row.hints or [""] * len(row.pieces)
    return [
        {
            "space": " " if piece[:1].isspace() else "",
            "text": _clean(piece.strip(" \n")),
            "color": shade(value, row.limit, row.signed),
            "hint": _clean(hint),
            "ends_line": piece.endswith("\n"),
        }
        for piece, value, hint in zip(row.pieces, row.values, hints, strict=True)
    ]


def _clean(text: str) -> str:
    return printable(text, most=200)


def draw_colored(path: Path, text: ColoredText) -> None:
    """Draw a colored text.

    Example:
        >>> from torch_linguist.report.page_parts import ColoredRow, ColoredText
        >>> row = ColoredRow("surprise", ["the", " cat"], [0.0, 1.0])
        >>> draw_colored(Path("text.png"), ColoredText("surprise", "Surprise", "", [row]))
        >>> Path("text.png").is_file()
        True
    """
    blocks = [(row, *_laid_out(row)) for row in text.rows]
    lines = sum(height + (1.3 if row.label else 0.4) for row, _, height in blocks)
    with new_figure(path, 0.15 + LINE * (lines + 0.5)) as figure:
        figure.set_layout_engine("none")
        top = 0.5
        for row, cells, height in blocks:
            if row.label:
                _write(figure, top, 0, _clean(row.label), size=8.5, color="#5b6472", mono=False)
                top += 1.1
            for line, column, piece, value in cells:
                _paint(figure, top + line, column, piece, shade(value, row.limit, row.signed))
            top += height + (0.2 if row.label else 0.4)


def _laid_out(row: ColoredRow) -> tuple[list[Cell], int]:
    """Return the position of each piece, and the number of lines."""
    cells: list[Cell] = []
    line = column = 0
    for piece, value in zip(row.pieces, row.values, strict=True):
        shown = _clean(piece.strip(" \n"))
        column += 1 if piece[:1].isspace() and column else 0
        for part in _cut(shown):
            if column + len(part) > COLUMNS and column:
                line, column = line + 1, 0
            cells.append((line, column, part, value))
            column += len(part)
        if piece.endswith("\n"):
            line, column = line + 1, 0
    return cells, line + (1 if column else 0)


def _cut(shown: str) -> Iterator[str]:
    for begin in range(0, len(shown), COLUMNS):
        yield shown[begin : begin + COLUMNS]


def _place(figure: Figure, line: float, column: float) -> tuple[float, float]:
    width, height = figure.get_size_inches()
    return (0.12 + column * (WIDTH - 0.24) / COLUMNS) / width, 1 - (line * LINE + 0.1) / height


def _paint(figure: Figure, line: float, column: int, piece: str, color: str | None) -> None:
    if color:
        x, y = _place(figure, line + 0.5, column)
        right, top = _place(figure, line - 0.4, column + len(piece))
        patch = Rectangle((x, y), right - x, top - y, transform=figure.transFigure, facecolor=color, linewidth=0)
        figure.add_artist(patch)
    _write(figure, line, column, piece, size=8.2, color="#1f2430", mono=True)


def _write(figure: Figure, line: float, column: float, text: str, *, size: float, color: str, mono: bool) -> None:
    x, y = _place(figure, line, column)
    font: dict[str, Any] = {"family": font_families("DejaVu Sans Mono")} if mono else {}
    figure.text(x, y, text, fontsize=size, color=color, va="center_baseline", **font)
