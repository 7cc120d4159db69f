"""The page: one HTML file with its figures and style inside, without scripts or external resources."""

import base64
import math
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from torch_linguist.errors import LinguistError
from torch_linguist.report.colored_text import colored_pieces, draw_colored
from torch_linguist.report.file_names import unique_file_names
from torch_linguist.report.fonts import missing_glyph_note
from torch_linguist.report.page_parts import ColoredText, Page, PageFigure, PageTable, Section
from torch_linguist.report.rendering import render
from torch_linguist.runs.csv_table import defused
from torch_linguist.runs.files import whole_file, write_text
from torch_linguist.runs.folders import create_run_folder

PAGE = "index.html"

MOST_FINDINGS = 6
"""Findings listed at the top of a page."""

LONGEST_CELL = 120
"""Characters shown of a long text in a table."""


def write_page(folder: Path, page: Page) -> Path:
    """Write a page with its figures below `figures/` and its tables below `tables/`.

    Returns:
        Path of the page, `index.html`.

    Raises:
        OSError: the folder cannot be written.
    """
    for part in ("figures", "tables"):
        (folder / part).mkdir(exist_ok=True)
    for name, frame in tables_by_file_name(page.sections).items():
        write_csv(frame, folder / "tables" / f"{name}.csv")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sections = _drawn_sections(folder, page.sections)
    glyphs = [str(warning.message) for warning in caught if str(warning.message).startswith("Glyph ")]
    for warning in caught:
        if str(warning.message) not in glyphs:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    text = render(
        "page.html",
        page=page,
        sections=sections,
        findings=_findings(page.sections),
        glyph_note=missing_glyph_note(glyphs),
    )
    write_text(folder / PAGE, _storable(text))
    return folder / PAGE


@contextmanager
def new_page_folder(output_dir: Path, name: str | None, default: str) -> Iterator[Path]:
    """Create a folder for a page; it is removed if the block fails, since without its page it would look complete.

    Raises:
        LinguistError: the folder cannot be created or written.
    """
    folder = create_run_folder(output_dir, name, default)
    try:
        yield folder
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise LinguistError(
                f"{folder}: cannot be written ({error.strerror or error}); free some space, or choose another folder"
            ) from error
        raise


def tables_by_file_name(sections: Iterable[Section]) -> dict[str, pd.DataFrame]:
    """Return every table by the name of its file below `tables/`, without suffix."""
    tables = [table for section in sections for table in section.tables]
    names = unique_file_names(table.name for table in tables)
    return {name: table.frame for name, table in zip(names, tables, strict=True)}


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table atomically, without its index.

    Text that a spreadsheet would run as a formula gets an apostrophe before it; see `defused`.
    """
    safe = frame.copy()
    for name in safe.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in safe.dtypes]]:
        safe[name] = [defused(value) for value in safe[name]]
    safe.columns = safe.columns.map(defused)
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="replace", newline="") as file:
        safe.to_csv(file, index=False)


def _findings(sections: Sequence[Section]) -> list[dict[str, str]]:
    """The first findings of all sections, then the second ones, and so on, in the order of the page."""
    ranked = sorted(
        (rank, place) for place, section in enumerate(sections) for rank in range(len(section.findings))
    )[:MOST_FINDINGS]  # fmt: skip
    return [
        {
            "text": sections[place].findings[rank],
            "section": sections[place].name,
            "title": sections[place].title,
        }
        for place, rank in sorted((place, rank) for rank, place in ranked)
    ]


def _drawn_sections(folder: Path, sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Draw all figures, and return the sections as plain values for the template."""
    tables = [table for section in sections for table in section.tables]
    files = iter(
        unique_file_names(
            part.name for section in sections for parts in (section.figures, section.colored_texts) for part in parts
        )
    )
    table_files = iter(unique_file_names(table.name for table in tables))
    found = []
    for section in sections:
        figures = [_figure(figure, next(files), folder) for figure in section.figures]
        colored = [_colored(text, next(files), folder) for text in section.colored_texts]
        named = [(table, f"tables/{next(table_files)}.csv") for table in section.tables]
        found.append(
            {
                "name": section.name,
                "title": section.title,
                "text": section.text,
                "notes": section.notes,
                "excerpts": section.excerpts,
                "figures": figures,
                "colored_texts": colored,
                "tables": [_table(table, file) for table, file in named if table.rows],
                "files": [file for table, file in named if not table.rows],
            }
        )
    return found


def _figure(figure: PageFigure, name: str, folder: Path) -> dict[str, Any]:
    path = folder / "figures" / f"{name}.png"
    figure.draw(path)
    png = base64.b64encode(path.read_bytes()).decode("ascii")
    return {"id": name, "title": figure.title, "caption": figure.caption, "png": png}


def _colored(text: ColoredText, name: str, folder: Path) -> dict[str, Any]:
    draw_colored(folder / "figures" / f"{name}.png", text)
    rows = [{"label": row.label, "pieces": colored_pieces(row)} for row in text.rows]
    file = f"figures/{name}.png"
    return {"id": name, "title": text.title, "caption": text.caption, "rows": rows, "file": file}


def _table(table: PageTable, file: str) -> dict[str, Any]:
    frame = table.frame.head(table.rows)
    is_text = [not pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    names = [str(name) for name in frame.columns]
    more = f"First {len(frame):,} of {len(table.frame):,} rows; all in" if len(frame) < len(table.frame) else "Also in"
    return {
        "title": table.title,
        "head": [{"text": name.replace("_", " "), "is_text": text} for name, text in zip(names, is_text, strict=True)],
        "rows": [
            [
                {"text": _cell(table, name, value), "is_text": text}
                for name, value, text in zip(names, row, is_text, strict=True)
            ]
            for row in frame.itertuples(index=False)
        ],
        "caption": f"{table.caption} {more}".strip(),
        "file": file,
    }


def _cell(table: PageTable, name: str, value: object) -> str:
    return str(value) if name in table.plain and value is not None else cell_text(value, name in table.shares)


def cell_text(value: object, share: bool = False) -> str:
    """Format a value for a cell: thousands separators, shares as percentages, long texts cut."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, float) or hasattr(value, "dtype"):
        number = float(value)  # type: ignore[arg-type]
        if share:
            return f"{100 * number:.2f}%"
        if not math.isfinite(number):
            return "–"
        digits = 0 if number == int(number) or abs(number) >= 1000 else 1 if abs(number) >= 100 else None
        return f"{number:.4g}" if digits is None or abs(number) >= 1e15 else f"{number:,.{digits}f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    text = str(value)
    return text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"


def _storable(text: str) -> str:
    """Replace control characters, which HTML cannot hold, and lone surrogates, which UTF-8 cannot."""
    visible = "".join(sign if sign.isprintable() or sign in "\n\t " or ord(sign) > 0xA0 else "·" for sign in text)
    return visible.encode("utf-8", "replace").decode("utf-8")
