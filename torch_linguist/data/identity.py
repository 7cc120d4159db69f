"""Identity of the text and the tokens that a model was trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_linguist.data.corpora.corpus import digest
from torch_linguist.data.stream import TokenizedCorpus
from torch_linguist.errors import DataError


def corpus_facts(corpus: TokenizedCorpus) -> dict[str, Any]:
    """Return the facts that a run records of its corpus: tokenizer, and size and checksum of each split."""
    return {
        "vocabulary": corpus.tokenizer.vocab_size,
        "tokenizer": digest("tokenizer", corpus.tokenizer.to_json())[:16],
        **{f"{split} tokens": len(stream) for split, stream in corpus.streams.items()},
        **{f"{split} checksum": checksum[:16] for split, checksum in corpus.checksums.items()},
    }


def check_unchanged(folder: Path, before: object, corpus: TokenizedCorpus, way_out: str) -> None:
    """Check that a corpus has not changed since the start of a run.

    Args:
        folder: run folder.
        before: result of `corpus_facts` at the start of the run; facts that earlier versions did not record are
            skipped.
        corpus: current corpus.
        way_out: advice that ends the error message.

    Raises:
        DataError: the text, its splits or the tokenizer differ.
    """
    if not isinstance(before, Mapping):
        return
    now = corpus_facts(corpus)
    differing = [f"{key}: {before[key]} then, {now[key]} now" for key in now if before.get(key, now[key]) != now[key]]
    if differing:
        raise DataError(
            f"{folder}: the text, its splits or the tokenizer have changed since the run began "
            f"({'; '.join(differing)}); {way_out}"
        )
