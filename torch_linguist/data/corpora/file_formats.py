"""Detection of encodings and binary formats from the first bytes of a file."""

import codecs
from collections.abc import Mapping

HEAD = 2**16
"""Number of bytes to inspect."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_SIGNATURES: Mapping[bytes, str] = {
    b"%PDF": "a PDF document; convert it to text first, such as with pdftotext",
    b"PK\x03\x04": "a zip archive or an office document; unpack it or save it as plain text",
    b"\xd0\xcf\x11\xe0": "an office document; save it as plain text",
    b"{\\rtf": "an RTF document; save it as plain text",
    b"\x1f\x8b": "packed with gzip; let its name end in .gz",
    b"BZh": "packed with bzip2; unpack it",
    b"\xfd7zXZ": "packed with xz; unpack it",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"PAR1": "a Parquet table; let its name end in .parquet",
    b"ARROW1": "an Arrow table; let its name end in .arrow",
    b"SQLite format 3": "a SQLite database; export its texts",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x7fELF": "a program",
}


def marked_encoding(head: bytes) -> str | None:
    """Return the encoding of a byte-order mark at the start of a file; None without such a mark."""
    return next((encoding for mark, encoding in _BYTE_ORDER_MARKS if head.startswith(mark)), None)


def foreign_format(head: bytes, encoding: str) -> str | None:
    """Return the format of a file that is not text in the given encoding, with advice; None for text.

    Args:
        head: first bytes of the file, decompressed.
        encoding: expected encoding.
    """
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return name
    if b"\0" not in head or "".join(encoding.split("-")).lower().startswith(("utf16", "utf32")):
        return None
    even, odd = head[0::2].count(0), head[1::2].count(0)
    # In UTF-16, one of the two bytes of each ASCII character is zero, always the same one.
    if max(even, odd) > 0.3 * len(head) / 2 and min(even, odd) < 0.1 * max(even, odd):
        order = "le" if odd > even else "be"
        return f"probably UTF-16 without a byte-order mark; set data.encoding=utf-16-{order}"
    return "binary, with zero bytes; give it plain text"


def is_cr_only(head: bytes) -> bool:
    """Return whether lines end in a carriage return alone, as on the first Macintoshes."""
    return b"\r" in head and b"\n" not in head
