"""Output to terminals and pipes whose encoding lacks some characters."""

import codecs
import io
import unicodedata
from typing import Any

LOOKALIKES = {
    "✓": "ok", "★": "*", "━": "-", "╸": "-", "╺": "-", "…": "...", "–": "-", "—": "--", "−": "-", "→": "->",
    "×": "x", "·": ".", "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "␣": "_", "⏎": "/",
}  # fmt: skip
"""ASCII replacements for the characters that our own output uses."""

HANDLER = "torch_linguist.lookalikes"


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(map(_lookalike, text)), error.end


def _lookalike(character: str) -> str:
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return LOOKALIKES.get(character) or plain or "?"


codecs.register_error(HANDLER, _replace)


def tolerate_encoding(stream: Any) -> None:
    """Make a text stream replace characters that its encoding lacks by ASCII, instead of raising UnicodeEncodeError.

    Args:
        stream: `sys.stdout` or the like; anything but a text file, such as a notebook's output, is left as it is.
    """
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=HANDLER)
