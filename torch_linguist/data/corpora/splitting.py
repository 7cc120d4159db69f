"""Assignment of documents to splits: by fraction, stratified by a column, or by a condition on one."""

import logging
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from torch_linguist.data.corpora.corpus import HELD_OUT, Document, MetadataValue, text_hash
from torch_linguist.errors import DataError

logger = logging.getLogger("torch_linguist.data")

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_CONDITION = re.compile(r"\s*(\w[\w .-]*?)\s*(<=|>=|!=|==|<|>|=)\s*(.*?)\s*")
_DROPPED = "dropped"


class Condition:
    """A comparison of a metadata column with a value: `year<1900`, `party=Whig`, `draft=true`.

    Args:
        text: the condition.

    Raises:
        DataError: the text is no condition.
    """

    def __init__(self, text: str) -> None:
        found = _CONDITION.fullmatch(text)
        if found is None or not found[3]:
            raise DataError(f"data.train_where={text}: no condition; write COLUMN<VALUE, with one of < <= > >= = !=")
        self.text = text
        self.column, self._symbol, value = found.groups()
        try:
            self._value: float | str = float(value)
        except ValueError:
            self._value = value.strip("'\"")

    def holds(self, metadata: Mapping[str, MetadataValue]) -> bool:
        """Return whether a document meets the condition; a document without a value does not.

        Raises:
            DataError: there is no such column, or its values cannot be compared with this one.
        """
        value = column_value(metadata, self.column, f"data.train_where={self.text}")
        if value is None:
            return False
        compare = _OPERATORS[self._symbol]
        if isinstance(self._value, str):
            if isinstance(value, bool):
                return compare(str(value).lower(), self._value.lower())
            return compare(str(value), self._value)
        try:
            return compare(float(value), self._value)
        except (ValueError, OverflowError):
            raise DataError(
                f"data.train_where={self.text}: the column {self.column} holds {str(value)[:60]!r}, not a number"
            ) from None


def column_value(metadata: Mapping[str, MetadataValue], column: str, option: str) -> MetadataValue:
    """Return the value of a column.

    Raises:
        DataError: there is no such column.
    """
    if column not in metadata:
        raise DataError(f"{option}: there is no column {column}; there are {', '.join(metadata) or 'none'}")
    return metadata[column]


class Splitter:
    """Assigns documents to train, valid and test; no document, and with `drop_duplicates` no text, is in two splits.

    Args:
        valid_fraction: share of the documents held out for validation; with `train_where`, of the matching documents.
        test_fraction: share of the documents held out for testing; ignored with `train_where`.
        seed: random seed of the draws.
        stratify: metadata column whose values are spread evenly over the splits.
        train_where: condition; matching documents train and validate, the others test.
        drop_duplicates: whether to keep only the first of several documents with the same text.

    Raises:
        DataError: a value is out of its range.
    """

    def __init__(
        self,
        valid_fraction: float,
        test_fraction: float,
        seed: int,
        stratify: str | None = None,
        train_where: str | None = None,
        drop_duplicates: bool = False,
    ) -> None:
        _check_fractions(valid_fraction, test_fraction)
        self.valid_fraction, self.test_fraction, self.seed = valid_fraction, test_fraction, seed
        self.stratify, self.drop_duplicates = stratify, drop_duplicates
        self.condition = None if train_where is None else Condition(train_where)

    @property
    def settings(self) -> list[Any]:
        """Return all settings that determine the splits, for a fingerprint."""
        where = self.condition and self.condition.text
        return [self.valid_fraction, self.test_fraction, self.seed, self.stratify, where, self.drop_duplicates]

    @property
    def looks_at_documents(self) -> bool:
        """Whether the splits depend on the content of the documents, not only on their number."""
        return self.stratify is not None or self.condition is not None or self.drop_duplicates

    def assign(self, documents: Iterable[Document], name: str, held_out: Sequence[str] = HELD_OUT) -> list[str]:
        """Return the split of each document, in order; dropped documents get the name of no split.

        Args:
            documents: documents, read once; only a few bytes of each stay in memory.
            name: name of the corpus, for messages.
            held_out: names of the held-out splits.

        Raises:
            DataError: there are too few documents, or a column is missing.
        """
        training: list[bool] = []
        strata: list[MetadataValue] = []
        duplicate: list[bool] = []
        seen: set[int] = set()
        for document in documents:
            if self.drop_duplicates:
                number = text_hash(document.text)
                duplicate.append(number in seen)
                seen.add(number)
            else:
                duplicate.append(False)
            training.append(self.condition is None or self.condition.holds(document.metadata))
            if self.stratify is not None:
                strata.append(column_value(document.metadata, self.stratify, f"data.stratify={self.stratify}"))
        if any(duplicate):
            logger.warning("%s: %d of %d documents are copies and dropped", name, sum(duplicate), len(duplicate))
        assigned = [_DROPPED if copy else "test" for copy in duplicate]
        candidates = [index for index in range(len(assigned)) if training[index] and not duplicate[index]]
        if strata:
            candidates.sort(key=lambda index: _sort_key(strata[index]))
        self._deal(candidates, assigned, name, held_out)
        return assigned

    def _deal(self, candidates: list[int], assigned: list[str], name: str, held_out: Sequence[str]) -> None:
        """Assign the candidates; with a condition, all others are for testing already."""
        tested = {index for index, split in enumerate(assigned) if split == "test"} - set(candidates)
        splits = ["train", *(split for split in held_out if self.condition is None or split == "valid")]
        if len(candidates) < len(splits) or (self.condition is not None and not tested):
            where = "" if self.condition is None else f" data.train_where={self.condition.text} is met by"
            raise DataError(
                f"{name}:{where} {len(candidates)} of {len(assigned)} documents; "
                f"each of {' and '.join(', '.join(['train', *held_out]).rsplit(', ', 1))} takes at least one"
            )
        fractions = {"valid": self.valid_fraction, "test": self.test_fraction}
        valid, test = (fractions[split] if split in splits else 0.0 for split in HELD_OUT)
        for index, split in zip(candidates, assign_splits(len(candidates), valid, test, self.seed), strict=True):
            assigned[index] = split


def assign_splits(count: int, valid_fraction: float, test_fraction: float, seed: int) -> list[str]:
    """Assign ordered documents to splits so that each split is spread evenly over that order.

    The documents are cut into as many runs of neighbors as validation documents are wanted, and one of each run is
    drawn; then the rest likewise for test. Ordered by year, every split covers all years alike.

    Args:
        count: number of documents, at least one per split.
        valid_fraction: share of validation documents; at least one is drawn, none if it is 0.
        test_fraction: share of test documents; at least one is drawn, none if it is 0.
        seed: random seed of the draws.

    Returns:
        The split of each document.
    """
    generator = np.random.default_rng(seed)
    assigned = ["train"] * count
    remaining = np.arange(count)
    for split, fraction in (("valid", valid_fraction), ("test", test_fraction)):
        if fraction == 0:
            continue
        wanted = min(max(1, round(count * fraction)), len(remaining) - 1)
        drawn = [int(generator.choice(run)) for run in np.array_split(remaining, wanted)]
        for index in drawn:
            assigned[index] = split
        remaining = np.setdiff1d(remaining, drawn)
    return assigned


def _check_fractions(valid_fraction: float, test_fraction: float) -> None:
    for name, value in (("valid_fraction", valid_fraction), ("test_fraction", test_fraction)):
        if not 0 < value < 1:
            raise DataError(f"data.{name}={value}: must be greater than 0 and less than 1")
    if valid_fraction + test_fraction >= 1:
        raise DataError(
            f"data.valid_fraction={valid_fraction} and data.test_fraction={test_fraction}: "
            "together they must be less than 1, or nothing is left to train on"
        )


def _sort_key(value: MetadataValue) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, float(value), "")
    return (1, 0.0, str(value))
