"""Changes of the text before tokenization. The tokenizer stores them, so that they apply to prompts as well."""

from collections.abc import Callable, Mapping, Sequence

import tokenizers
from tokenizers import Regex, normalizers

from torch_linguist.errors import DataError

_MARK = r"[^\s\p{L}\p{M}\p{N}_]"
# Positions beside a mark without white space, except inside <unk>, which is a word in many corpora.
_BESIDE_MARKS = (
    rf"(?:(?<=\S)(?={_MARK})|(?<={_MARK})(?=\S))(?<!<)(?<!<unk)|(?<=<)(?!unk>)(?=\S)|(?<=<unk)(?!>)(?={_MARK})"
)

_MAKERS: Mapping[str, Callable[[], normalizers.Normalizer]] = {
    "nfc": normalizers.NFC,
    "nfd": normalizers.NFD,
    "nfkc": normalizers.NFKC,
    "nfkd": normalizers.NFKD,
    "lowercase": normalizers.Lowercase,
    "strip_accents": lambda: normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.NFC()]),
    "digits": lambda: normalizers.Replace(Regex(r"\p{N}"), "0"),
    "punctuation": lambda: normalizers.Replace(Regex(_BESIDE_MARKS), " "),
    "whitespace": lambda: normalizers.Replace(Regex(r"\s+"), " "),
}

TRANSFORMS = tuple(_MAKERS)
"""Unicode forms (nfc, nfd, nfkc, nfkd), lowercase, strip_accents, digits (each becomes 0), punctuation (blanks around
marks), whitespace (one blank for each run)."""


def transform_chain(names: Sequence[str], lowercase: bool = False) -> list[str]:
    """Check the names of a chain of transforms.

    Args:
        names: names from `TRANSFORMS`, in the order of application.
        lowercase: whether to append `lowercase` if the names lack it.

    Returns:
        The complete chain.

    Raises:
        DataError: there is no such transform.
    """
    for name in names:
        if name not in _MAKERS:
            raise DataError(f"tokenizer.transforms={name}: no such transform; choose from {', '.join(TRANSFORMS)}")
    return [*names, "lowercase"] if lowercase and "lowercase" not in names else list(names)


def set_transforms(backend: tokenizers.Tokenizer, chain: Sequence[str]) -> None:
    """Set a checked chain as the normalizer of a tokenizer of the library."""
    if chain:
        made = [_MAKERS[name]() for name in chain]
        backend.normalizer = made[0] if len(made) == 1 else normalizers.Sequence(made)
