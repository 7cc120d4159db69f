"""Fonts for figures: fallbacks for scripts that matplotlib's own font lacks, and notes where none is installed."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

SCRIPT_FONTS: dict[str, tuple[str, ...]] = {
    "CJK": ("Noto Sans CJK SC", "Noto Sans SC", "Microsoft YaHei", "PingFang SC", "WenQuanYi Zen Hei"),
    "HIRAGANA": ("Noto Sans CJK JP", "Noto Sans JP", "Yu Gothic", "Hiragino Sans", "IPAGothic"),
    "KATAKANA": ("Noto Sans CJK JP", "Noto Sans JP", "Yu Gothic", "Hiragino Sans", "IPAGothic"),
    "HANGUL": ("Noto Sans CJK KR", "Noto Sans KR", "Malgun Gothic", "Apple SD Gothic Neo", "NanumGothic"),
    "ARABIC": ("Noto Sans Arabic", "Noto Naskh Arabic", "Segoe UI", "Geeza Pro"),
    "HEBREW": ("Noto Sans Hebrew", "Segoe UI", "Arial Hebrew"),
    "DEVANAGARI": ("Noto Sans Devanagari", "Nirmala UI", "Kohinoor Devanagari", "Lohit Devanagari"),
    "BENGALI": ("Noto Sans Bengali", "Nirmala UI", "Kohinoor Bangla", "Lohit Bengali"),
    "TAMIL": ("Noto Sans Tamil", "Nirmala UI", "Tamil Sangam MN", "Lohit Tamil"),
    "TELUGU": ("Noto Sans Telugu", "Nirmala UI", "Kohinoor Telugu", "Lohit Telugu"),
    "GUJARATI": ("Noto Sans Gujarati", "Nirmala UI", "Kohinoor Gujarati", "Lohit Gujarati"),
    "THAI": ("Noto Sans Thai", "Leelawadee UI", "Thonburi", "Garuda"),
    "ETHIOPIC": ("Noto Sans Ethiopic", "Ebrima", "Kefa", "Abyssinica SIL"),
    "GEORGIAN": ("Noto Sans Georgian", "Segoe UI", "Helvetica"),
    "ARMENIAN": ("Noto Sans Armenian", "Segoe UI", "Mshtakan"),
    "KHMER": ("Noto Sans Khmer", "Leelawadee UI", "Khmer Sangam MN"),
    "MYANMAR": ("Noto Sans Myanmar", "Myanmar Text", "Myanmar Sangam MN"),
    "emoji and symbols": ("Noto Emoji", "Noto Sans Symbols2", "Segoe UI Emoji", "Segoe UI Symbol", "Symbola"),
}
"""Script, as the first word of its characters' Unicode names, to fonts: Noto (Linux), Windows, macOS, others."""

GENERAL_FONTS = ("Noto Sans", "Arial Unicode MS", "FreeSans", "Unifont")
"""Fonts with many scripts, tried last."""


def font_families(first: str) -> list[str]:
    """Return a font and the installed fallbacks for characters that it lacks."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    wanted = [name for fonts in SCRIPT_FONTS.values() for name in fonts]
    return [first, *(name for name in dict.fromkeys([*wanted, *GENERAL_FONTS]) if name in installed)]


def script_of(character: str) -> str:
    """Return the key of `SCRIPT_FONTS` for a character, or the first word of its Unicode name in lower case."""
    if not unicodedata.category(character).startswith(("L", "M", "N")):
        return "emoji and symbols"
    word = unicodedata.name(character, "unnamed characters").partition(" ")[0]
    return word if word in SCRIPT_FONTS else word.lower()


def missing_glyph_note(warnings: Iterable[str]) -> str | None:
    """Turn matplotlib's warnings about missing glyphs into one sentence that names the scripts and a font for each.

    Returns:
        The sentence; None where no glyph is missing.
    """
    found = [re.match(r"Glyph (\d+) ", text) for text in warnings]
    scripts = dict.fromkeys(script_of(chr(int(match[1]))) for match in found if match)
    if not scripts:
        return None
    named = ", ".join(
        f"{script.title() if script.isupper() and script != 'CJK' else script}"
        + (f" (install for example {SCRIPT_FONTS[script][0]})" if script in SCRIPT_FONTS else "")
        for script in scripts
    )
    return f"Some labels show boxes because no installed font has these characters: {named}."


def font_file_for(text: str) -> Path | None:
    """Return the file of an installed font that covers most characters of a text, for tools that take one font only.

    Returns:
        Path of the font file; None where matplotlib's own font does as well as any other.
    """
    wanted = {ord(character) for character in text if not character.isspace()}
    default = Path(font_manager.findfont("DejaVu Sans"))
    best, most = None, len(wanted & set(FT2Font(str(default)).get_charmap()))
    for name in font_families("DejaVu Sans")[1:]:
        path = font_manager.findfont(name, fallback_to_default=False)
        covered = len(wanted & set(FT2Font(path).get_charmap()))
        if covered > most:
            best, most = Path(path), covered
    return best
