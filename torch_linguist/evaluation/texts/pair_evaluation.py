"""Evaluation of models on minimal pairs from files: accuracy by group, and paired tests between models."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from torch_linguist.evaluation.texts.records import RecordReader
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


def read_pairs(files: Sequence[str], errors: str = "strict") -> list[MinimalPair]:
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
    for name in _expanded(files):
        pairs += _pairs_of(name, errors)
    if not pairs:
        raise DataError(f"--pairs {' '.join(files)}: holds no pairs")
    return pairs


def _expanded(files: Sequence[str]) -> Iterator[str]:
    for name in files:
        path = Path(name).expanduser()
        yield from map(str, sorted(path.glob("*.jsonl"))) if path.is_dir() else [str(path)]


def _pairs_of(name: str, errors: str) -> Iterator[MinimalPair]:
    good_column = bad_column = ""
    # The first row names the columns.
    for candidate in GOOD_COLUMNS:
        try:
            first = next(iter(RecordReader([name], candidate, errors)), None)
        except DataError as error:
            if "no such column" not in str(error):
                raise
            continue
        if first is None:
            return
        good_column = candidate
        bad_column = next((other for other in BAD_COLUMNS if other in first.columns), "")
        break
    if not (good_column and bad_column):
        raise DataError(f"{name}: holds no pairs; its columns must be sentence_good and sentence_bad, or good and bad")
    for number, record in enumerate(RecordReader([name], good_column, errors), start=1):
        bad = record.columns.get(bad_column)
        if not (record.text.strip() and isinstance(bad, str) and bad.strip()):
            if errors == "skip":
                continue
            raise DataError(f"{name}: pair {number} has one side only; --errors skip continues without it")
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
