"""Control characters never reach a terminal as they are."""

import io
import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from torch_linguist.report.console import SafeConsole
from torch_linguist.runs.visible_text import visible

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x9b2J\r\u202eexe.\u2066\ud800\x7f\x00b"


def test_every_control_character_becomes_a_sign() -> None:
    assert visible(HOSTILE) == "a␛[31mred␛]0;title␇\\x9b2J␍\\u202eexe.\\u2066\\ud800␡␀b"
    assert visible("line\n\tindented, é, 语, 👩‍🚀") == "line\n\tindented, é, 语, 👩‍🚀"


@given(st.text(st.characters(codec=None)))
def test_what_is_shown_can_be_encoded_and_moves_nothing(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert not {sign for sign in shown if unicodedata.category(sign) == "Cc"} - {"\n", "\t"}
    assert visible(shown) == shown


def test_a_console_shows_hostile_cells_and_keeps_its_own_colors() -> None:
    output = io.StringIO()
    console = SafeConsole(file=output, force_terminal=True, color_system="standard", width=200, highlight=False)
    table = Table("name")
    table.add_row(Text(HOSTILE, style="red"))
    console.print(table)
    console.print(HOSTILE, markup=False)
    text = output.getvalue()
    assert "\x1b[31m" in text  # The style of the cell, written by the console itself.
    assert "\x1b]0;" not in text
    assert "\x9b" not in text
    assert "\u202e" not in text
    assert text.count("␛]0;title") == 2
