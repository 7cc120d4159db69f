"""Metadata columns: their kinds, groups, cross tables and years."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.explore.columns import (
    Column,
    counts_by_year,
    cross_tables,
    describe_columns,
    find_years,
    groups,
    round_width,
)

FRAME = pd.DataFrame(
    {
        "split": ["train"] * 30 + ["valid"] * 10,
        "words": 2,
        "tokens": 3,
        "party": ["Whig", "Federalist"] * 20,
        "type": (["spoken"] * 3 + [None]) * 10,
        "year": list(range(1790, 1830)),
        "title": [f"t{number}" for number in range(40)],
        "country": "US",
        "stars": [1, 2, 3, 4] * 10,
    }
)


def test_kinds_of_columns() -> None:
    described = {column.name: column for column in describe_columns(FRAME, FRAME.columns[3:])}
    assert {name: column.kind for name, column in described.items()} == {
        "party": "category",
        "type": "constant",
        "year": "number",
        "title": "identifier",
        "country": "constant",
        "stars": "category",
    }
    assert described["type"].missing == 10


def test_groups_of_numbers_are_round_intervals() -> None:
    grouped = groups(FRAME, Column("year", "number", 40, 0))
    assert grouped.iloc[0] == "1790–1794"
    assert grouped.value_counts().sum() == 40
    assert groups(FRAME, Column("stars", "category", 4, 0)).cat.categories.tolist() == ["1", "2", "3", "4"]


def test_rare_categories_become_one() -> None:
    frame = pd.DataFrame({"name": ["a"] * 9 + ["b"] * 5 + list("cdefg")})
    assert groups(frame, Column("name", "category", 7, 0), most=3).value_counts().to_dict() == {
        "a": 9,
        "b": 5,
        "(other 5)": 5,
    }


@given(st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=False, width=32), min_size=2, max_size=30))
@settings(max_examples=60, deadline=None)
def test_every_number_finds_its_group(values: list[float | None]) -> None:
    frame = pd.DataFrame({"x": pd.Series([*values, 0.0, 1.0, 2.5], dtype=object)})
    assert groups(frame, Column("x", "number", 3, 0)).notna().all()


@pytest.mark.parametrize(("width", "rounder"), [(3.2, 5), (10, 10), (0.011, 0.02), (19, 20), (0, 1)])
def test_round_widths(width: float, rounder: float) -> None:
    assert round_width(width) == pytest.approx(rounder)


def test_cross_tables_hold_every_document_once() -> None:
    tables = cross_tables(FRAME, describe_columns(FRAME, FRAME.columns[3:]))
    names = [(table.index.name, table.columns.name) for table in tables]
    assert names == [("stars", "party"), ("party", "split"), ("stars", "split")]
    assert all(table.to_numpy().sum() == 40 for table in tables)
    assert tables[1].loc["Whig", "valid"] == 5


def test_years_from_numbers_and_dates() -> None:
    years = find_years(FRAME, ["party", "year"])
    assert years is not None
    counted = counts_by_year(FRAME, years)
    assert counted[counted["year"] == 1790][["split", "documents", "tokens"]].values.tolist() == [["train", 1, 3]]
    dated = find_years(pd.DataFrame({"Date": ["3 May 1901", "1902-01-01", None]}), ["Date"])
    assert dated is not None
    assert dated.tolist()[:2] == [1901, 1902]
    assert dated.isna().tolist() == [False, False, True]
    assert find_years(FRAME, ["party"]) is None
