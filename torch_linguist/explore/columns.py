"""Metadata columns: their kinds, groups, cross tables, and counts by year."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

MISSING = "(none)"
MOST_GROUPS = 20
"""Maximum number of groups in a figure, besides one for the rest."""

MOST_TABLES = 10
"""Maximum number of cross tables."""

CROSS_GROUPS = 12
"""Maximum number of values of a column in a cross table."""


@dataclass(frozen=True)
class Column:
    """A metadata column.

    Attributes:
        name: name of the column.
        kind: `category`, `number`, `identifier` (nearly every document has its own value) or `constant`.
        values: number of different values.
        missing: number of documents without a value.
    """

    name: str
    kind: str
    values: int
    missing: int

    @property
    def is_grouping(self) -> bool:
        """Whether the column groups the documents."""
        return self.kind in ("category", "number")


def describe_columns(frame: pd.DataFrame, names: Iterable[str]) -> list[Column]:
    """Describe metadata columns of a table with one row per document."""
    described = []
    for name in names:
        present = frame[name].dropna()
        values = int(present.astype(str).nunique())
        described.append(Column(name, _kind(present, values), values, len(frame) - len(present)))
    return described


def _kind(present: pd.Series, values: int) -> str:
    if values <= 1:
        return "constant"
    numeric = bool(present.map(lambda value: isinstance(value, int | float) and not isinstance(value, bool)).all())
    if numeric:
        return "number" if values > CROSS_GROUPS else "category"
    return "identifier" if values > max(CROSS_GROUPS, 0.5 * len(present)) else "category"


def groups(frame: pd.DataFrame, column: Column, most: int = MOST_GROUPS) -> pd.Series:
    """Return the group of each document, an ordered category: its value, or the interval of a number.

    Args:
        frame: table with one row per document.
        column: a grouping column.
        most: maximum number of groups; the rarest categories become one.
    """
    values = frame[column.name]
    if column.kind == "number":
        return _intervals(values, most)
    names = values.map(_name)
    counts = names.value_counts()
    order = sorted(counts.index, key=lambda name: (-int(counts[name]), name))
    if len(order) > most:
        rest = f"(other {len(order) - most + 1})"
        kept = set(order[: most - 1])
        names = names.map(lambda name: name if name in kept else rest)
        order = [*order[: most - 1], rest]
    elif pd.api.types.is_numeric_dtype(values.dropna().infer_objects()):
        order = [_name(value) for value in sorted(values.dropna().unique())] + [MISSING] * (MISSING in counts)
    return pd.Series(pd.Categorical(names, categories=order, ordered=True), index=frame.index)


def _name(value: object) -> str:
    if value is None or value != value:
        return MISSING
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return " ".join(text.split()) or "(empty)"


def _intervals(values: pd.Series, most: int) -> pd.Series:
    """Return intervals of a round width; a few outlying documents share the outermost ones."""
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    finite = numbers[np.isfinite(numbers)]
    low, high = (float(edge) for edge in np.quantile(finite, [0.01, 0.99]))
    whole = bool((finite == finite.round()).all())
    width = round_width((high - low) / min(most, 12), whole)
    first, last = int(np.floor(low / width)), int(np.floor(high / width))
    index = np.floor(numbers / width).clip(first, last)
    labels = {cell: _interval_name(cell * width, width, whole) for cell in range(first, last + 1)}
    if finite.min() < first * width:
        labels[first] = f"to {labels[first].split('–')[-1]}"
    if finite.max() >= (last + 1) * width:
        labels[last] = f"from {labels[last].split('–')[0]}"
    named = pd.Series([labels[int(cell)] if np.isfinite(cell) else MISSING for cell in index], index=values.index)
    order = [*labels.values()] + [MISSING] * bool((named == MISSING).any())
    return pd.Series(pd.Categorical(named, categories=order, ordered=True), index=values.index)


def _interval_name(begin: float, width: float, whole: bool) -> str:
    if whole:
        return f"{begin:.0f}" if width == 1 else f"{begin:.0f}–{begin + width - 1:.0f}"
    return f"{begin:.6g}–{begin + width:.6g}"


def round_width(width: float, whole: bool = False) -> float:
    """Return the next larger of 1, 2, 5, 10, 20, 50, ..., or of their tenths, hundredths, ... for fractions."""
    if not width > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(width))
    wide = next(power * step for step in (1, 2, 5, 10) if power * step >= width * (1 - 1e-9))
    return float(max(1.0, wide) if whole else wide)


def cross_tables(frame: pd.DataFrame, columns: Sequence[Column]) -> list[pd.DataFrame]:
    """Count the documents by each pair of columns with few values, and by split and each such column.

    The names of index and columns of a table are the crossed columns.
    """
    small = [column for column in columns if column.kind == "category" and column.values <= CROSS_GROUPS]
    grouped = {column.name: groups(frame, column) for column in small}
    pairs = [(one.name, other.name) for number, one in enumerate(small) for other in small[number + 1 :]]
    tables = []
    for one, other in pairs:
        if len(grouped[one].cat.categories) < len(grouped[other].cat.categories):
            one, other = other, one
        tables.append(pd.crosstab(grouped[one].rename(one), grouped[other].rename(other)))
    for name, values in grouped.items():
        splits = pd.Series(pd.Categorical(frame["split"], categories=frame["split"].unique()), index=frame.index)
        tables.append(pd.crosstab(values.rename(name), splits.rename("split")))
    return tables[:MOST_TABLES]


def find_years(frame: pd.DataFrame, names: Sequence[str]) -> pd.Series | None:
    """Return the year of each document, `<NA>` if missing: a column `year`, or four digits of a date column.

    Returns None if no column has years.
    """
    by_name = {name.lower(): name for name in reversed(names)}
    for candidate in ("year", "date", "published", "timestamp", "created"):
        if candidate in by_name:
            digits = frame[by_name[candidate]].astype(str).str.extract(r"(?<!\d)(\d{4})(?!\d)")[0]
            years = pd.to_numeric(digits, errors="coerce").astype("Int64")
            if years.notna().any():
                return years.rename("year")
    return None


def counts_by_year(frame: pd.DataFrame, years: pd.Series) -> pd.DataFrame:
    """Count documents, words and tokens of each split by year."""
    known = frame.assign(year=years)[years.notna()]
    table = known.groupby(["year", "split"], sort=True).agg(
        documents=("split", "size"), words=("words", "sum"), tokens=("tokens", "sum")
    )
    return table.reset_index()


def by_group(frame: pd.DataFrame, grouped: pd.Series, measure: str) -> dict[str, np.ndarray]:
    """Return the values of a measure in each group that has any, in the order of the groups."""
    found: Mapping[str, np.ndarray] = {
        str(name): frame.loc[grouped == name, measure].to_numpy() for name in grouped.cat.categories
    }
    return {name: values for name, values in found.items() if len(values)}
