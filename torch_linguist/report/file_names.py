"""File names for the figures and tables of a page."""

import re
import unicodedata
from collections.abc import Iterable

LONGEST = 80
"""Maximum number of bytes of a name, in UTF-8 and without its suffix. File systems allow 255."""


def unique_file_names(names: Iterable[str]) -> list[str]:
    """Return one file name per name: readable, valid on every file system, and different from all others.

    Letters and digits of any script are kept. Everything else becomes `_`. Names that would coincide, also where case
    or Unicode normalization is ignored, are numbered: `tokens`, `tokens_2`.
    """
    taken: set[str] = set()
    found = []
    for name in names:
        stem = re.sub(r"[^\w-]", "_", unicodedata.normalize("NFC", name)).encode()[:LONGEST].decode(errors="ignore")
        candidate, number = stem or "_", 1
        while (key := unicodedata.normalize("NFKC", candidate).casefold()) in taken:
            number += 1
            candidate = f"{stem}_{number}"
        taken.add(key)
        found.append(candidate)
    return found
