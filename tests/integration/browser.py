"""A page as a browser shows it, for the tests of all commands that write one."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
]


class Shown(NamedTuple):
    """What a browser made of a page.

    Attributes:
        needed: width in pixels that the page takes.
        available: width that it has.
        loaded: pictures that are shown.
        pictures: pictures there are.
        logged: what it said on the console.
    """

    needed: int
    available: int
    loaded: int
    pictures: int
    logged: list[str]


def show(page: Path, folder: Path, width: int) -> Shown:
    """Opens a page in a window of a width; skips where there is no browser.

    Args:
        page: an HTML file.
        folder: for files that this takes, of the test's own.
        width: in pixels.
    """
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        pytest.skip("needs chromium to show the page")
    # The page, told to report its own width and pictures; a frame, since a window cannot be as narrow as a phone.
    report = (
        "<script>addEventListener('load', () => parent.postMessage([document.documentElement.scrollWidth, innerWidth,"
        " [...document.images].filter(i => i.naturalWidth > 0).length, document.images.length].join(' '), '*'))"
        "</script>"
    )
    text = page.read_text(encoding="utf-8")
    (folder / "page.html").write_text(text.replace("</body>", f"{report}</body>"), encoding="utf-8")
    (folder / "frame.html").write_text(
        "<body><p id=said></p><script>onmessage = event => { said.textContent = event.data };"
        "console.log('control line')</script>"
        f"<iframe src=page.html style='border:0;width:{width}px;height:3000px'></iframe>",
        encoding="utf-8",
    )
    line = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", (folder / "frame.html").as_uri()]
    found = subprocess.run(line, capture_output=True, text=True, timeout=200, check=True)
    said = re.search(r'<p id="said">([\d ]+)</p>', found.stdout)
    assert said is not None, found.stdout[:500]
    logged = [line for line in found.stderr.splitlines() if "CONSOLE" in line]
    # Were the control line missing, silence would say nothing.
    assert any("control line" in line for line in logged)
    needed, available, loaded, pictures = map(int, said[1].split())
    return Shown(needed, available, loaded, pictures, [line for line in logged if "control line" not in line])
