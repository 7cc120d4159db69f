"""Findings of an exploration: one sentence each, for the top of the page."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from torch_linguist.explore.columns import groups
from torch_linguist.explore.measure import Measurements

CLEAR_SHIFT = 0.1
"""Difference of shares between train and another split that is worth a sentence."""

FREQUENT = 100
"""Number of most frequent words whose share is given."""


def findings(measured: Measurements) -> dict[str, list[str]]:
    """Return the findings of each section, by the name of the section."""
    makers: dict[str, Callable[[Measurements], str | None]] = {
        "overview": _unknown_words,
        "lengths": _lengths,
        "splits": _largest_shift,
        "duplicates": _duplicates,
        "frequency": _frequent_words,
    }
    found = {section: make(measured) for section, make in makers.items()}
    return {section: [sentence] for section, sentence in found.items() if sentence is not None}


def _unknown_words(measured: Measurements) -> str:
    tokens = measured.documents.groupby("split")["tokens"].sum()
    sizes = ", ".join(f"{tokens.get(split, 0):,} in {split}" for split in measured.splits)
    rates = [
        f"{measured.oov[split] / max(int(tokens.get(split, 0)), 1):.1%} of {split}" for split in measured.splits[1:]
    ]
    return f"Tokens: {sizes}. Outside the vocabulary: {', '.join(rates) or 'none'}."


def _lengths(measured: Measurements) -> str | None:
    lengths = measured.documents["tokens"]
    if lengths.empty:
        return None
    return f"Half of the documents have at most {lengths.median():,.0f} tokens; the longest has {lengths.max():,}."


def _largest_shift(measured: Measurements) -> str | None:
    """The value of a metadata column whose share differs most between train and another split."""
    best: tuple[float, str] | None = None
    for column in measured.columns:
        if column.kind != "category" or not column.is_grouping:
            continue
        counts = pd.crosstab(groups(measured.documents, column, most=12), measured.documents["split"])
        shares = counts / counts.sum()
        for split in measured.splits[1:]:
            if split not in shares or "train" not in shares:
                continue
            differences = (shares[split] - shares["train"]).abs()
            place = int(differences.to_numpy().argmax())
            value = shares.index[place]
            sentence = (
                f"{split} is {shares[split].iloc[place]:.0%} {value} by {column.name}, train "
                f"{shares['train'].iloc[place]:.0%}."
            )
            if best is None or float(differences.iloc[place]) > best[0]:
                best = (float(differences.iloc[place]), sentence)
    if best is None:
        return None
    return best[1] if best[0] >= CLEAR_SHIFT else "By their metadata, valid and test look like train."


def _duplicates(measured: Measurements) -> str | None:
    digests = {split: set(sample.digests) for split, sample in measured.samples.items()}
    train = digests.get("train", set())
    shared = {split: len(found & train) for split, found in digests.items() if split != "train"}
    if not any(shared.values()):
        return "No document of another split is a copy of one in train." if shared else None
    return f"Copies of documents in train: {', '.join(f'{count:,} in {split}' for split, count in shared.items())}."


def _frequent_words(measured: Measurements) -> str | None:
    counts = np.sort(np.asarray(measured.word_counts["train"]))[::-1]
    if counts.sum() == 0:
        return None
    once = int((counts == 1).sum()) / max(int((counts > 0).sum()), 1)
    return (
        f"The {FREQUENT} most frequent words make up {counts[:FREQUENT].sum() / counts.sum():.0%} of train; {once:.0%} "
        "of its different words occur once."
    )
