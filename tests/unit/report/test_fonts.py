"""Fonts for scripts: fallbacks that are installed, and a note on what is missing."""

import pytest
from matplotlib import font_manager

from torch_linguist.report.fonts import SCRIPT_FONTS, font_families, font_file_for, missing_glyph_note, script_of


@pytest.mark.parametrize(
    ("character", "script"),
    [("党", "CJK"), ("ひ", "HIRAGANA"), ("カ", "KATAKANA"), ("한", "HANGUL"), ("ش", "ARABIC"), ("א", "HEBREW"),
     ("क", "DEVANAGARI"), ("ั", "THAI"), ("😀", "emoji and symbols"), ("a", "latin")],
)  # fmt: skip
def test_scripts(character: str, script: str) -> None:
    assert script_of(character) == script


def test_only_installed_fonts_are_used() -> None:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = font_families("DejaVu Sans")
    assert families[0] == "DejaVu Sans"
    assert set(families) <= installed
    assert len(set(families)) == len(families)
    assert {font for fonts in SCRIPT_FONTS.values() for font in fonts} & installed <= set(families)


def test_the_note_names_each_script_once() -> None:
    found = missing_glyph_note(
        ["Glyph 20826 (\\N{CJK UNIFIED IDEOGRAPH-515A}) missing from font(s) DejaVu Sans.",
         "Glyph 27966 (\\N{CJK UNIFIED IDEOGRAPH-6D3E}) missing from font(s) DejaVu Sans.",
         "Glyph 2325 (\\N{DEVANAGARI LETTER KA}) missing from font(s) DejaVu Sans.", "another warning"]
    )  # fmt: skip
    assert found is not None
    assert found.count("CJK (") == 1
    assert "Devanagari (install for example Noto Sans Devanagari)" in found
    assert missing_glyph_note(["another warning"]) is None


def test_matplotlib_has_what_latin_needs() -> None:
    assert font_file_for("The quick brown fox, größer als é") is None
