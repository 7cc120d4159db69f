"""The documentation builds: every chapter of the guide is executed with small sizes, and the pages need no network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from browser import show

pytest.importorskip("sphinx_book_theme", reason='needs pip install -e ".[docs]"')

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted(path.stem for path in (ROOT / "docs" / "guide").glob("[0-9]*.md"))

pytestmark = [pytest.mark.docs, pytest.mark.xdist_group("docs"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages, warnings taken for errors."""
    folder = tmp_path_factory.mktemp("docs")
    environment = {
        **os.environ,
        "TORCH_LINGUIST_GUIDE": "quick",
        "GUIDE_EXECUTION": "force",
        "PYTHONPATH": str(ROOT),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(folder / "doctrees")]
    built = subprocess.run(
        [*command, str(ROOT / "docs"), str(folder / "html")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-6000:]
    return folder / "html"


def test_every_chapter_is_there_and_listed(site: Path) -> None:
    assert CHAPTERS
    listed = (ROOT / "docs" / "guide" / "index.md").read_text(encoding="utf-8")
    for chapter in CHAPTERS:
        assert (site / "guide" / f"{chapter}.html").is_file()
        assert f"({chapter}.md)" in listed


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_can_be_taken_along_as_a_notebook(site: Path, chapter: str) -> None:
    (path,) = site.rglob(f"{chapter}.ipynb")
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loading = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"((?:https?:)?//[^\"]+)", re.I)
    found = {(path.name, url) for path in site.rglob("*.html") for url in loading.findall(path.read_text("utf-8"))}
    remote = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)")
    found |= {(path.name, url) for path in site.rglob("*.css") for url in remote.findall(path.read_text("utf-8"))}
    assert found == set()


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_solutions_are_folded(site: Path, chapter: str) -> None:
    page = (site / "guide" / f"{chapter}.html").read_text(encoding="utf-8")
    source = (ROOT / "docs" / "guide" / f"{chapter}.md").read_text(encoding="utf-8")
    assert len(re.findall(r'<details class="[^"]*solution', page)) == source.count("````{solution}") > 0


def test_every_picture_has_an_alternative_text(site: Path) -> None:
    pages = {page.name: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    pictures = [(name, picture) for name, text in pages.items() for picture in re.findall(r"<img\b[^>]*>", text)]
    assert len({page for page, _ in pictures} & {f"{chapter}.html" for chapter in CHAPTERS}) == len(CHAPTERS)
    texts = [(page, re.search(r'\balt="([^"]*)"', picture)) for page, picture in pictures]
    # Sphinx takes the path of a picture without a text for its text.
    assert [(page, text) for page, text in texts if text is None or not text[1].strip() or "/" in text[1]] == []


def test_formulas_and_glued_numbers_are_in_the_page(site: Path) -> None:
    text = (site / "guide" / "01-the-problem.html").read_text(encoding="utf-8")
    assert "mathjax/tex-" in text
    # The text of ten words costs -sum of count * log2(count / 10) bits.
    assert "26.46 bits in all" in " ".join(re.sub(r"<[^>]+>", "", text).split())


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_fits_the_window_and_logs_no_error(site: Path, chapter: str, width: int) -> None:
    shown = show(site / "guide" / f"{chapter}.html", site / "guide", width)
    assert shown.needed <= shown.available
    assert shown.loaded == shown.pictures > 0
    assert [line for line in shown.logged if "ERROR" in line or "Uncaught" in line] == []
