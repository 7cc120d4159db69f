"""Visible characters that byte-level tokens use in place of bytes, as in GPT-2 (Radford et al. 2019)."""

import itertools


def _byte_signs() -> list[str]:
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    beyond = itertools.count(0x100)
    return [chr(value) if value in visible else chr(next(beyond)) for value in range(256)]


BYTE_SIGNS = tuple(_byte_signs())
"""The sign of each of the 256 bytes."""

BYTE_OF_SIGN = {sign: value for value, sign in enumerate(BYTE_SIGNS)}
"""The byte of each sign."""
