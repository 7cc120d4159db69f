"""Text of unknown origin, made safe for a terminal.

Corpora, file names and damaged files may hold control characters. Written as they are, they could move the cursor,
change the title, recolor the screen or hide what follows; here each becomes a visible sign.
"""

KEPT = "\t\n"

DIRECTION_MARKS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Marks that change the direction of the text around them, and so what a line seems to say."""

LINE_SEPARATORS = (0x2028, 0x2029)

_SIGNS: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in KEPT},
    0x7F: "\u2421",
    **{code: f"\\x{code:02x}" for code in range(0x80, 0xA0)},
    **{code: f"\\u{code:04x}" for code in (*DIRECTION_MARKS, *LINE_SEPARATORS, *range(0xD800, 0xE000), 0xFEFF)},
}


def visible(text: str) -> str:
    r"""Return a text with a visible sign for each control character except tabs and line feeds.

    Control characters become their control pictures (ESC becomes ␛); C1 controls, direction marks and lone surrogates
    become escapes such as `\x9b`.
    """
    return text.translate(_SIGNS)
