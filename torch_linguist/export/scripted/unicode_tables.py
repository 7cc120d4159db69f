"""Unicode tables for TorchScript: character classes and lower case."""

import functools
import sys
import unicodedata

OTHER, LETTER, MARK, NUMBER, SPACE, UNDERSCORE = range(6)
"""Character classes."""

WHITE_SPACE = frozenset(
    [*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
)
"""Code points with the property White_Space; Python's `isspace` accepts four more."""


@functools.cache
def class_ranges() -> tuple[list[int], list[int]]:
    """Return ranges of code points by class: the start of each, ascending from 0, and its class."""
    starts: list[int] = []
    classes: list[int] = []
    for point in range(sys.maxunicode + 1):
        found = _class_of(point)
        if not classes or classes[-1] != found:
            starts.append(point)
            classes.append(found)
    return starts, classes


@functools.cache
def lower_table() -> dict[str, str]:
    """Return the lower case of each character that has one; some are two characters long."""
    pairs = ((chr(point), chr(point).lower()) for point in range(sys.maxunicode + 1))
    return {character: lower for character, lower in pairs if character != lower}


def _class_of(point: int) -> int:
    if point in WHITE_SPACE:
        return SPACE
    if point == ord("_"):
        return UNDERSCORE
    return {"L": LETTER, "M": MARK, "N": NUMBER}.get(unicodedata.category(chr(point))[0], OTHER)
