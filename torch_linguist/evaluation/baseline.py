"""The honest baseline: a modified Kneser-Ney n-gram on the same tokens, scored once a corpus.

Shape legend: N tokens.
"""

import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch_linguist.data import TokenizedCorpus
from torch_linguist.evaluation.scoring import Score, score
from torch_linguist.model import NGramModel

LOG = logging.getLogger("torch_linguist.evaluation")

FORMAT = 1
"""Raised whenever the n-gram model's figures change, so that those on disk are not taken for them."""


def ngram_baseline(
    corpus: TokenizedCorpus, order: int = 5, splits: Sequence[str] = ("valid", "test")
) -> dict[str, Score]:
    """Scores of an n-gram model of the training split; kept beside the token cache.

    Args:
        corpus: the token streams.
        order: words in the longest n-gram.
        splits: which splits to score.

    Returns:
        The score of each split.
    """
    path = corpus.folder / f"baseline-{order}gram.json"
    nats = _read(path)
    if nats is None or any(split not in nats for split in splits):
        model = NGramModel(corpus.tokenizer.vocab_size, order)
        model.fit_counts(corpus.train.ids, corpus.tokenizer.eos_id)
        nats = {}
        for split in splits:
            stream = corpus.streams[split]
            nats[split] = score(model, stream).loss * len(stream)
        _write(path, nats)
    return {split: Score.of(nats[split], corpus.streams[split]) for split in splits}


def _read(path: Path) -> dict[str, float] | None:
    """The total nats of each split; None where the file is not there or not ours."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return None
    nats = content.get("nats")
    if not isinstance(nats, dict) or not all(isinstance(value, float) for value in nats.values()):
        return None
    return nats


def _write(path: Path, nats: dict[str, float]) -> None:
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, "nats": nats}, file)
        os.replace(temporary, path)  # noqa: PTH105  (the temporary name is a string)
    except OSError as error:
        LOG.warning("the baseline's scores are not kept: %s", error)
