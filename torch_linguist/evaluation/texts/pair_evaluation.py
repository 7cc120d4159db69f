"""Evaluation of models on minimal pairs from files: accuracy by group, and paired tests between models."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch_linguist.errors import DataError, LinguistError
from torch_linguist.evaluation.texts.line_scores import score_lines
from torch_linguist.evaluation.texts.minimal_pairs import (
    MinimalPair,
    PairAccuracy,
    decided,
    pair_accuracy,
    separated_words,
    sign_test,
)
from torch_linguist.evaluation.texts.records import CONTINUE, RecordReader
from torch_linguist.evaluation.texts.rows import Scorer

GOOD_COLUMNS = ("sentence_good", "good")
BAD_COLUMNS = ("sentence_bad", "bad")
GROUP_COLUMNS = ("UID", "group")


@dataclass(frozen=True)
class PairReport:
    """Results of models on minimal pairs.

    Attributes:
        accuracies: accuracies of each model, one per group; the last is named `all` if there are several groups.
        p_values: p-value of each pair of models (exact sign test).
    """

    accuracies: Mapping[str, Sequence[PairAccuracy]]
    p_values: Mapping[tuple[str, str], float]


class ReadPairs(NamedTuple):
    """Minimal pairs of files.

    Attributes:
        pairs: the pairs.
        skipped: number of rows left out because they cannot be read or have one side only.
    """

    pairs: list[MinimalPair]
    skipped: int


def read_pairs(files: Sequence[str], errors: str = "strict") -> ReadPairs:
    """Read the minimal pairs of files, or of all `.jsonl` files in folders.

    JSON lines with `sentence_good`, `sentence_bad` and `UID` (BLiMP's form) or `good`, `bad` and `group`; or two
    columns of a `.csv` or `.tsv` file with these names. The group defaults to the name of the file.

    Args:
        files: paths of files and folders.
        errors: handling of rows that cannot be read; see `RecordReader`.

    Raises:
        DataError: a file cannot be read, or a pair lacks a side.
    """
    pairs: list[MinimalPair] = []
    skipped = 0
    for name in _expanded(files):
        columns = _columns_of(name, errors)
        if columns is not None:
            reader = RecordReader([name], columns[0], errors)
            pairs += _pairs_of(reader, name, columns[1])
            skipped += reader.skipped
    if not pairs:
        raise DataError(f"--pairs {' '.join(files)}: holds no pairs")
    return ReadPairs(pairs, skipped)


def _expanded(files: Sequence[str]) -> Iterator[str]:
    for name in files:
        path = Path(name).expanduser()
        yield from map(str, sorted(path.glob("*.jsonl"))) if path.is_dir() else [str(path)]


def _columns_of(name: str, errors: str) -> tuple[str, str] | None:
    """Return the columns of both sides, which the first row names; None for a file without rows."""
    for candidate in GOOD_COLUMNS:
        try:
            first = next(iter(RecordReader([name], candidate, errors)), None)
        except DataError as error:
            if "no such column" not in str(error):
                raise
            continue
        if first is None:
            return None
        bad_column = next((other for other in BAD_COLUMNS if other in first.columns), None)
        if bad_column:
            return candidate, bad_column
        break
    raise DataError(f"{name}: holds no pairs; its columns must be sentence_good and sentence_bad, or good and bad")


def _pairs_of(reader: RecordReader, name: str, bad_column: str) -> Iterator[MinimalPair]:
    for number, record in enumerate(reader, start=1):
        bad = record.columns.get(bad_column)
        if not (record.text.strip() and isinstance(bad, str) and bad.strip()):
            reader.refuse(f"{name}: pair {number} has one side only; {CONTINUE}")
            continue
        group = next((str(record.columns[key]) for key in GROUP_COLUMNS if record.columns.get(key)), Path(name).stem)
        yield MinimalPair(record.text, bad, group)


def evaluate_pairs(scorers: Sequence[Scorer], pairs: Sequence[MinimalPair]) -> PairReport:
    """Evaluate models on minimal pairs.

    Raises:
        LinguistError: there are no pairs.
    """
    if not pairs:
        raise LinguistError("pairs: there are none to decide")
    groups: dict[str, list[int]] = {}
    for index, pair in enumerate(pairs):
        groups.setdefault(pair.group, []).append(index)
    if len(groups) > 1:
        groups["all"] = list(range(len(pairs)))
    accuracies: dict[str, list[PairAccuracy]] = {}
    decisions: dict[str, list[float]] = {}
    for scorer in scorers:
        sentences = itertools.chain.from_iterable((pair.good, pair.bad) for pair in pairs)
        texts = separated_words(sentences, scorer.tokenizer)
        scores = list(score_lines(scorer.model, scorer.tokenizer, texts, precision=scorer.precision))
        logs = [score.log_probability for score in scores]
        good, bad = logs[::2], logs[1::2]
        unknown = [one.unknown + other.unknown > 0 for one, other in zip(scores[::2], scores[1::2], strict=True)]
        decisions[scorer.label] = list(map(decided, good, bad))
        accuracies[scorer.label] = [
            pair_accuracy(
                name,
                [good[index] for index in members],
                [bad[index] for index in members],
                [unknown[index] for index in members],
            )
            for name, members in groups.items()
        ]
    p_values = {
        (one, other): sign_test(decisions[one], decisions[other]) for one, other in itertools.combinations(decisions, 2)
    }
    return PairReport(accuracies, p_values)
