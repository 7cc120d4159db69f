"""Checks of a corpus: its published counts, and documents that occur in two splits."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_linguist.data.corpora.corpus import Corpus
from torch_linguist.data.tokenizers.tokenizer import Tokenizer
from torch_linguist.errors import DataError

logger = logging.getLogger("torch_linguist.data")


def check_expected(corpus: Corpus, split: str, tokenizer: Tokenizer, counts: Mapping[str, Any], lines: int) -> None:
    """Compare a split with its published counts.

    `words_and_lines` is the number of tokens that papers report: words separated by white space and one ``<eos>`` per
    line, with any tokenizer. `types` is known only if each word is one token. `characters` counts ASCII text without
    newlines.

    Raises:
        DataError: a count differs. For the user's own copy, this is a warning.
    """
    found = {
        "lines": lines,
        "words": counts["words"],
        "words_and_lines": counts["words"] + lines,
        "characters": counts["bytes"] - lines,
    }
    whole_words = tokenizer.joins_words and not tokenizer.transformed
    if whole_words and counts["oov"] == 0 and counts["tokens"] == found["words_and_lines"]:
        found["types"] = tokenizer.vocab_size
    for name, expected in corpus.expected.get(split, {}).items():
        if name in found and found[name] != expected:
            message = (
                f"{corpus.name}: the split {split} has {found[name]:,} {name.replace('_', ' ')}, "
                f"the published corpus {expected:,}"
            )
            if corpus.own_copy:
                logger.warning("%s; scores cannot be compared with published ones", message)
            else:
                raise DataError(f"{message}; check data.revision, or set data.expected=null")


def count_duplicates(corpus: Corpus, hashes: Mapping[str, NDArray[np.uint64]]) -> dict[str, int]:
    """Count the documents of each split whose exact text also occurs in an earlier split, and log them.

    Args:
        corpus: corpus that the message names.
        hashes: hash of each document's text, by split; train comes first.

    Returns:
        The number of duplicates of each split except the first.
    """
    found: dict[str, int] = {}
    splits = list(hashes)
    for index, split in enumerate(splits[1:], start=1):
        seen = np.zeros(len(hashes[split]), bool)
        for earlier in splits[:index]:
            seen |= np.isin(hashes[split], hashes[earlier])
        found[split] = int(np.count_nonzero(seen))
        if found[split]:
            way_out = "; data.drop_duplicates=true drops them" if corpus.drop_duplicates is False else ""
            logger.warning(
                "%s: %d of %d documents of %s stand word for word in %s%s",
                corpus.name,
                found[split],
                len(seen),
                split,
                " or ".join(splits[:index]),
                way_out,
            )
    return found
