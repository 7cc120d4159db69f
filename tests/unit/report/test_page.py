"""Pages: everything inserted is escaped, files are named apart, findings lead to their sections."""

import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from torch_linguist.report.figure_style import new_figure
from torch_linguist.report.file_names import unique_file_names
from torch_linguist.report.page import cell_text, tables_by_file_name, write_csv, write_page
from torch_linguist.report.page_parts import (
    ColoredRow,
    ColoredText,
    Excerpt,
    Page,
    PageFigure,
    PageTable,
    Section,
)

EVIL = "<script>alert('x')</script> & \"quoted\" \udcff \x00"


class Tags(HTMLParser):
    """Collects the tags of a page and checks that they are closed in order."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def draw(path: Path, label: str) -> None:
    with new_figure(path, 2) as figure:
        figure.subplots().set_title(label)


def figure(name: str, label: str = "some") -> PageFigure:
    return PageFigure(name, label, label, partial(draw, label=label))


def parsed(page: Path) -> Tags:
    tags = Tags()
    tags.feed(page.read_text(encoding="utf-8"))
    assert tags.open == []
    return tags


def test_everything_is_escaped(tmp_path: Path) -> None:
    # pandas itself refuses lone surrogates.
    cell = EVIL.replace("\udcff", "")
    frame = pd.DataFrame({cell: [cell], "number": [1.5]})
    row = ColoredRow(EVIL, ["a", f" {EVIL}", "\n"], [0.5, -1.0, 0.0], [EVIL] * 3, signed=True)
    section = Section(
        "one",
        EVIL,
        [EVIL],
        [figure("f", "<b>")],
        [PageTable("t", EVIL, frame, EVIL), PageTable("hidden", EVIL, frame, rows=0)],
        [Excerpt(EVIL, EVIL)],
        [ColoredText("c", EVIL, EVIL, [row])],
        [EVIL],
        [EVIL],
    )
    page = write_page(tmp_path, Page(EVIL, EVIL, [section], {EVIL: EVIL}, [(EVIL, EVIL)]))
    tags = parsed(page)
    assert "script" not in tags.seen
    assert "b" not in tags.seen
    assert "\x00" not in page.read_text(encoding="utf-8")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"f.png", "c.png"}
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"t.csv", "hidden.csv"}


def test_findings_link_to_their_sections(tmp_path: Path) -> None:
    sections = [
        Section("one", "One", findings=["first of one", "second of one"]),
        Section("two", "Two", findings=[f"{number} of two" for number in range(9)]),
        Section("three", "Three", findings=["first of three"]),
    ]
    page = write_page(tmp_path, Page("P", "s", sections))
    text = page.read_text(encoding="utf-8")
    listed = re.findall(r'<li>(.*?) <a href="#(\w+)">', text)
    # The first finding of each section comes before the second of any.
    assert listed == [
        ("first of one", "one"), ("second of one", "one"), ("0 of two", "two"), ("1 of two", "two"),
        ("2 of two", "two"), ("first of three", "three"),
    ]  # fmt: skip
    tags = parsed(page)
    assert {link.removeprefix("#") for link in tags.links if link.startswith("#")} <= set(tags.ids)


def test_a_script_without_a_font_is_named(tmp_path: Path) -> None:
    # Cuneiform: hardly any machine has a font for it.
    page = write_page(tmp_path, Page("P", "s", [Section("one", "One", figures=[figure("f", "a \U00012000")])]))
    assert "no installed font has these characters: cuneiform" in page.read_text(encoding="utf-8")
    plain = write_page(tmp_path, Page("P", "s", [Section("one", "One", figures=[figure("f", "äö")])]))
    assert "no installed font" not in plain.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["by_year", "by year", "by/year"], ["by_year", "by_year_2", "by_year_3"]),
        (["größe", "grösse", "党", "党派"], ["größe", "grösse_2", "党", "党派"]),
        (["Year", "year"], ["Year", "year_2"]),
        (["é", "e\u0301"], ["é", "é_2"]),
        (["", "..", "a_2", "a", "a"], ["_", "__", "a_2", "a", "a_3"]),
    ],
)
def test_file_names_are_unique(names: list[str], files: list[str]) -> None:
    assert unique_file_names(names) == files


def test_long_names_are_cut_apart() -> None:
    found = unique_file_names(["党" * 200, "党" * 201])
    assert len(set(found)) == 2
    assert max(len(name.encode()) for name in found) < 100


def test_columns_that_differ_in_punctuation_have_files_of_their_own(tmp_path: Path) -> None:
    sections = [
        Section("one", "One", figures=[figure("by_a b", "first"), figure("by_a-b", "second")]),
        Section("two", "Two", tables=[PageTable("v_党", "T", pd.DataFrame({"x": [1]})),
                                      PageTable("v_派", "T", pd.DataFrame({"x": [2]}))]),
    ]  # fmt: skip
    write_page(tmp_path, Page("P", "s", sections))
    first, second = ((tmp_path / "figures" / f"{name}.png").read_bytes() for name in ("by_a_b", "by_a-b"))
    assert first != second
    found = {name: frame["x"].item() for name, frame in tables_by_file_name(sections).items()}
    assert found == {"v_党": 1, "v_派": 2}


def test_cells_that_a_spreadsheet_would_run_are_defused(tmp_path: Path) -> None:
    words = ["=1+1", "+", "-", "@SUM(A1)", "-3.5", "plain", "\t=x"]
    frame = pd.DataFrame({"word": words, "value": [-1.0, 2, 3, 4, 5, 6, 7], "=h()": words})
    write_csv(frame, tmp_path / "t.csv")
    found = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert list(found) == ["word", "value", "'=h()"]
    assert found["word"].tolist() == ["'=1+1", "+", "-", "'@SUM(A1)", "-3.5", "plain", "'\t=x"]
    assert found["value"].tolist() == [-1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("value", "share", "text"),
    [(0.1234, True, "12.34%"), (1234567, False, "1,234,567"), (1234.6, False, "1,235"),
     (0.00012345, False, "0.0001234"),
     (None, False, "–"), (float("nan"), False, "–"), (float("inf"), False, "–"), (True, False, "yes"),
     (3.1e27, False, "3.1e+27"), ("x" * 200, False, "x" * 119 + "…")],
)  # fmt: skip
def test_cells(value: object, share: bool, text: str) -> None:
    assert cell_text(value, share) == text
