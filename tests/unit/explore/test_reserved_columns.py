"""Metadata columns whose names clash with ours or with each other: each keeps a table and a figure of its own."""

import itertools

import pytest

from torch_linguist.data import Document, InMemoryCorpus, WordTokenizerTrainer
from torch_linguist.explore.exploration import make_sections
from torch_linguist.explore.measure import measure
from torch_linguist.explore.settings import ExploreSettings
from torch_linguist.report.page import tables_by_file_name

NAMES = ("size", "sum", "test", "train", "valid", "split", "position", "tokens", "documents", "year", "value", "words")
ODD = ("a-b", "a_b", "ä", "ö", "党", "派", "?", "!", "Size")


def documents(names: tuple[str, ...], count: int) -> list[Document]:
    """Documents whose values are the names of columns."""
    values = itertools.cycle(["train", "valid", "size", *names])
    return [Document(f"the king sees {number} .\n", {name: next(values) for name in names}) for number in range(count)]


@pytest.mark.parametrize("names", [NAMES, ODD, ("split", "split (metadata)", "tokens")])
def test_every_column_has_its_own_table_and_figure(names: tuple[str, ...]) -> None:
    corpus = InMemoryCorpus({"train": documents(names, 40), "valid": documents(names, 9), "test": documents(names, 9)})
    settings = ExploreSettings(word_cloud=False)
    measured = measure(corpus, WordTokenizerTrainer(min_frequency=1), settings)
    sections = make_sections(measured, settings, seed=1)
    tables = tables_by_file_name(sections)
    shown = [table for section in sections for table in section.tables]
    assert len(tables) == len(shown)
    values = {table.title for table in shown if table.name.startswith("values_")}
    assert len(values) == len(names)
    for name, frame in tables.items():
        assert len(set(frame.columns)) == len(frame.columns), name
