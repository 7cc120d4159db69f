"""Changes of the text before it is tokenized, as a chain; kept inside the tokenizer, so that prompts get them too."""

from collections.abc import Callable, Mapping, Sequence

import tokenizers
from tokenizers import Regex, normalizers

from torch_linguist.errors import DataError

_MARK = r"[^\s\p{L}\p{M}\p{N}_]"
# The places beside a mark where no white space stands; none inside <unk>, which is a word of its own in many corpora.
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
"""Unicode forms (nfc, nfd, nfkc, nfkd), lowercase, strip_accents; digits: each becomes 0; punctuation: marks are set
off by blanks; whitespace: each run of it becomes one blank."""


def transform_chain(names: Sequence[str], lowercase: bool = False) -> list[str]:
    """Checks the names of a chain.

    Args:
        names: of `TRANSFORMS`, in the order in which they apply.
        lowercase: whether lower-casing is asked for beside the chain; it then comes last.

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
    """Puts a checked chain into a tokenizer of the library."""
    if chain:
        made = [_MAKERS[name]() for name in chain]
        backend.normalizer = made[0] if len(made) == 1 else normalizers.Sequence(made)
