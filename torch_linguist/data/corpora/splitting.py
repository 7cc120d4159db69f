"""Which document goes to which split: by fraction, stratified by a column, or by a condition on one."""

import logging
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch_linguist.data.corpora.corpus import Document, MetadataValue, assign_splits, check_fractions, text_hash
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
    """A comparison of a metadata column with a number or a text, such as `year<1900` or `party=Whig`."""

    def __init__(self, text: str) -> None:
        """Reads the condition.

        Raises:
            DataError: it is none.
        """
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
        """Whether a document meets the condition; one without a value does not.

        Raises:
            DataError: there is no such column, or its values cannot be compared with this one.
        """
        value = column_value(metadata, self.column, f"data.train_where={self.text}")
        if value is None:
            return False
        if isinstance(self._value, str):
            return _OPERATORS[self._symbol](str(value), self._value)
        try:
            return _OPERATORS[self._symbol](float(value), self._value)
        except ValueError:
            raise DataError(
                f"data.train_where={self.text}: the column {self.column} holds {value!r}, which is no number"
            ) from None


def column_value(metadata: Mapping[str, MetadataValue], column: str, option: str) -> MetadataValue:
    """The value of a column.

    Raises:
        DataError: there is no such column.
    """
    if column not in metadata:
        raise DataError(f"{option}: there is no column {column}; there are {', '.join(metadata) or 'none'}")
    return metadata[column]


class Splitter:
    """Deals documents out to train, valid and test; no document, and with `drop_duplicates` no text, is in two."""

    def __init__(
        self,
        valid_fraction: float,
        test_fraction: float,
        seed: int,
        stratify: str | None = None,
        train_where: str | None = None,
        drop_duplicates: bool = False,
    ) -> None:
        """Sets how.

        Args:
            valid_fraction: share held out for validation; with `train_where`, of the documents that meet it.
            test_fraction: share held out for testing; not used with `train_where`.
            seed: of the draws.
            stratify: a metadata column whose values are spread over the splits alike.
            train_where: a condition: what meets it is for training and validation, the rest tests.
            drop_duplicates: keep only the first of documents with the same text.

        Raises:
            DataError: a value is out of its range.
        """
        check_fractions(valid_fraction, test_fraction)
        self.valid_fraction, self.test_fraction, self.seed = valid_fraction, test_fraction, seed
        self.stratify, self.drop_duplicates = stratify, drop_duplicates
        self.condition = None if train_where is None else Condition(train_where)

    @property
    def settings(self) -> list[Any]:
        """Everything that determines the splits, for a fingerprint."""
        where = self.condition and self.condition.text
        return [self.valid_fraction, self.test_fraction, self.seed, self.stratify, where, self.drop_duplicates]

    @property
    def looks_at_documents(self) -> bool:
        """Whether more than the number of documents is needed."""
        return self.stratify is not None or self.condition is not None or self.drop_duplicates

    def assign(self, documents: Iterable[Document], name: str) -> list[str]:
        """The split of each document, in order; something else than a split's name for those that are dropped.

        Args:
            documents: are read once; only a few bytes of each are kept.
            name: of the corpus, for the messages.

        Raises:
            DataError: there are too few documents for three splits, or a column is missing.
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
        self._deal(candidates, assigned, name)
        return assigned

    def _deal(self, candidates: list[int], assigned: list[str], name: str) -> None:
        wanted = 3 if self.condition is None else 2
        if len(candidates) < wanted or (self.condition is not None and "test" not in self._left(candidates, assigned)):
            where = "" if self.condition is None else f" data.train_where={self.condition.text} is met by"
            raise DataError(
                f"{name}:{where} {len(candidates)} of {len(assigned)} documents; "
                "each of train, valid and test takes at least one"
            )
        test_fraction = self.test_fraction if self.condition is None else 0.0
        for index, split in zip(
            candidates, assign_splits(len(candidates), self.valid_fraction, test_fraction, self.seed), strict=True
        ):
            assigned[index] = split

    def _left(self, candidates: list[int], assigned: list[str]) -> Iterator[str]:
        chosen = set(candidates)
        return (split for index, split in enumerate(assigned) if index not in chosen)


def _sort_key(value: MetadataValue) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, float(value), "")
    return (1, 0.0, str(value))
