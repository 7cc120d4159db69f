"""The pictures of the architectures in the guide."""

import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[3]
PICTURES = runpy.run_path(str(ROOT / "scripts" / "documentation" / "draw_architectures.py"))["PICTURES"]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_the_one_that_the_script_draws(name: str) -> None:
    text = (ROOT / "docs" / "guide" / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    assert text == PICTURES[name]()
    assert ElementTree.fromstring(text).find("{http://www.w3.org/2000/svg}title") is not None
