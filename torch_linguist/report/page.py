"""The page: one HTML file with its figures and style inside, no script, nothing from elsewhere."""

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import pandas as pd

from torch_linguist.report.colored_text import colored_html, draw_colored
from torch_linguist.report.page_parts import PageFigure, PageTable, Section
from torch_linguist.runs.files import whole_file, write_text

PAGE = "index.html"

STYLE = """
:root { color-scheme: light; --ink: #1f2430; --soft: #5b6472; --line: #dfe3ea; --accent: #2f5d9b; --paper: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 16px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 28px 0 4px; }
h2 { font-size: 1.3rem; margin: 40px 0 8px; padding-top: 8px; border-top: 2px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 6px; }
p { margin: 6px 0; max-width: 75ch; }
.soft, figcaption { color: var(--soft); font-size: .88rem; }
nav { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 12px 0; }
a { color: var(--accent); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 520px), 1fr)); gap: 14px;
  margin: 14px 0; align-items: start; }
figure, .card, blockquote { margin: 0; padding: 12px 14px; background: #fff; border: 1px solid var(--line);
  border-radius: 8px; min-width: 0; }
figure img { display: block; width: 100%; min-width: 500px; height: auto; margin-bottom: 6px; }
blockquote { font-size: .92rem; }
blockquote pre { margin: 0; white-space: pre-wrap; font: inherit; }
.tables { display: flex; flex-wrap: wrap; gap: 14px; margin: 14px 0; align-items: flex-start; }
.card { max-width: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 10px 3px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
th.text, td.text { text-align: left; }
td.text { white-space: normal; max-width: 40ch; overflow-wrap: break-word; }
.card > p { max-width: 48ch; }
.wide { width: 100%; margin: 14px 0; }
.wide > p { max-width: none; }
p.colored_texts { line-height: 1.9; margin: 2px 0 10px; }
p.colored_texts span { padding: 2px 0; border-radius: 2px; }
code { font-size: .88em; background: #eceff4; padding: 1px 4px; border-radius: 4px; }
footer { margin-top: 40px; padding-bottom: 40px; }
"""


def write_page(folder: Path, title: str, subtitle: str, sections: Sequence[Section], footer: str) -> Path:
    """Writes the page with all that it shows: every figure below `figures/`, every table below `tables/`.

    Args:
        folder: of the page; there already.
        title: of the page.
        subtitle: below it.
        sections: the parts.
        footer: the last line.

    Returns:
        The page, `index.html`.

    Raises:
        OSError: the folder cannot be written.
    """
    for part in ("figures", "tables"):
        (folder / part).mkdir(exist_ok=True)
    for table in (table for section in sections for table in section.tables):
        write_csv(table.frame, folder / "tables" / f"{table.name}.csv")
    figures: dict[str, Path] = {}
    for drawing in (drawing for section in sections for drawing in section.figures):
        figures[drawing.name] = folder / "figures" / f"{drawing.name}.png"
        drawing.draw(figures[drawing.name])
    for text in (text for section in sections for text in section.colored_texts):
        draw_colored(folder / "figures" / f"{text.name}.png", text)
    write_text(folder / PAGE, render_page(title, subtitle, sections, figures, footer))
    return folder / PAGE


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes a table as a whole or not at all; its index is left out."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="replace", newline="") as file:
        frame.to_csv(file, index=False)


def render_page(
    title: str, subtitle: str, sections: Sequence[Section], figures: Mapping[str, Path], footer: str
) -> str:
    """The page as one text.

    Args:
        title: of the page.
        subtitle: below it.
        sections: the parts.
        figures: the PNG of each drawing, by name; taken into the page.
        footer: the last line.
    """
    links = "".join(f'<a href="#{escape(section.name)}">{escape(section.title)}</a>' for section in sections)
    body = "\n".join(_section(section, figures) for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="soft">{escape(subtitle)}</p>
<nav>{links}</nav>
</header>
<main>
{body}
</main>
<footer><p class="soft">{escape(footer)}</p></footer>
</body>
</html>
"""


def _section(section: Section, figures: Mapping[str, Path]) -> str:
    parts = [f'<section id="{escape(section.name)}">', f"<h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.text]
    if section.excerpts:
        quotes = "".join(
            f'<blockquote><p class="soft">{escape(_visible(entry.source))}</p>'
            f"<pre>{escape(_visible(entry.text))}</pre></blockquote>"
            for entry in section.excerpts
        )
        parts.append(f'<div class="grid">{quotes}</div>')
    parts += [colored_html(text) for text in section.colored_texts]
    first = [table for table in section.tables if table.rows and not section.figures]
    later = [table for table in section.tables if table not in first]
    parts += _tables(first)
    if section.figures:
        parts.append(
            f'<div class="grid">{"".join(_figure(entry, figures[entry.name]) for entry in section.figures)}</div>'
        )
    parts += _tables([table for table in later if table.rows])
    files = [f"<code>tables/{escape(table.name)}.csv</code>" for table in section.tables if not table.rows]
    if files:
        parts.append(f'<p class="soft">Also written: {", ".join(files)}</p>')
    return "\n".join([*parts, "</section>"])


def _figure(drawing: PageFigure, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<figure id="{escape(drawing.name)}"><h3>{escape(drawing.title)}</h3>'
        # Narrower than a phone's screen, a figure is scrolled rather than shrunk until nobody can read it.
        f'<div class="scroll"><img src="data:image/png;base64,{data}" '
        f'alt="{escape(drawing.title)}: {escape(drawing.caption)}"></div>'
        f"<figcaption>{escape(drawing.caption)}</figcaption></figure>"
    )


def _tables(tables: Sequence[PageTable]) -> list[str]:
    return [f'<div class="tables">{"".join(map(_table, tables))}</div>'] if tables else []


def _table(table: PageTable) -> str:
    frame = table.frame.head(table.rows)
    text = {str(name) for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])}
    head = "".join(f"<th{_kind(str(name), text)}>{escape(str(name).replace('_', ' '))}</th>" for name in frame.columns)
    rows = []
    for values in frame.itertuples(index=False):
        cells = "".join(
            f"<td{_kind(str(name), text)}>{escape(_cell(table, str(name), value))}</td>"
            for name, value in zip(frame.columns, values, strict=True)
        )
        rows.append(f"<tr>{cells}</tr>")
    more = f"The first {len(frame):,} of {len(table.frame):,} rows; all" if len(frame) < len(table.frame) else "Also"
    caption = f"{table.caption} {more} in".strip()
    return (
        f'<div class="card"><h3>{escape(table.title)}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="soft">{escape(caption)} <code>tables/{escape(table.name)}.csv</code></p></div>'
    )


def _cell(table: PageTable, name: str, value: object) -> str:
    return str(value) if name in table.plain and value is not None else cell_text(value, name in table.shares)


def _kind(name: str, text: set[str]) -> str:
    return ' class="text"' if name in text else ""


def cell_text(value: object, share: bool = False) -> str:
    """A value as a cell shows it: thousands separated, shares as per cent, long texts cut."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, float) or hasattr(value, "dtype"):
        number = float(value)  # type: ignore[arg-type]
        if share:
            return f"{100 * number:.2f}%"
        if not math.isfinite(number):
            return "–"
        digits = 0 if number == int(number) or abs(number) >= 1000 else 1 if abs(number) >= 100 else None
        return f"{number:.4g}" if digits is None else f"{number:,.{digits}f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    text = _visible(str(value))
    return text if len(text) <= 120 else f"{text[:119]}…"


def _visible(text: str) -> str:
    """Without the control characters that HTML cannot hold and lone surrogates that UTF-8 cannot."""
    cleaned = "".join(sign if sign.isprintable() or sign in "\n\t " or ord(sign) > 0xA0 else "·" for sign in text)
    return cleaned.encode("utf-8", "replace").decode("utf-8")
