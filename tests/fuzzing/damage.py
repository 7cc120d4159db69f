"""Seeded damage to the bytes of a file."""

import random

ODD = (
    b"-1",
    b"1e999",
    b"9" * 400,
    b"null",
    b"[" * 3000,
    b'"',
    b"{}",
    b"nan",
    b"\n",
    b"\r",
    b"\0",
    b"\xff\xfe",
    b"\x1b[2J",
)


def damaged(content: bytes, source: random.Random) -> bytes:
    """Return a content with flipped bits, a cut, a stretch doubled, lost or replaced, or other bytes altogether."""
    kind = source.choice(["flip", "flip", "cut", "lose", "double", "replace", "replace", "any"])
    at, length = source.randrange(len(content) + 1), source.choice([1, 3, 16, 200])
    if kind == "cut":
        return content[:at]
    if kind == "lose":
        return content[:at] + content[at + length :]
    if kind == "double":
        return content[: at + length] + content[at:]
    if kind == "replace":
        odd = source.choice([*ODD, source.randbytes(12)])
        return content[:at] + odd + content[at + length :]
    if kind == "any":
        return source.randbytes(source.randrange(200))
    flipped = bytearray(content)
    for _ in range(source.randint(1, 4) if content else 0):
        flipped[source.randrange(len(content))] ^= 1 << source.randrange(8)
    return bytes(flipped)
