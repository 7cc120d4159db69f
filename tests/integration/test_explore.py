"""`tl-explore` as a person runs it: the folder, the page in a browser, and what goes wrong."""

import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from browser import show

from torch_linguist.cli.explore import main
from torch_linguist.data import BPETokenizerTrainer, Document, InMemoryCorpus, WikiTextCorpus, WordTokenizerTrainer
from torch_linguist.errors import LinguistError
from torch_linguist.explore import Exploration, ExploreSettings, explore, measure
from torch_linguist.explore.measure import totals


def made_corpus() -> InMemoryCorpus:
    parties = ["Whig", "Federalist", None]
    documents = [
        Document(f"the $ {number} cats <b>& saw\nword{number} the end .\n\n" * (1 + number % 7),
                 {"year": 1800 + number, "party": parties[number % 3], "id": f"d{number}"})
        for number in range(40)
    ]  # fmt: skip
    splits = {
        "train": [*documents[:30], Document("")],
        "valid": [*documents[30:35], documents[0]],
        "test": documents[35:],
    }
    return InMemoryCorpus(splits, name="made")


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Exploration:
    trainer = BPETokenizerTrainer(vocab_size=300)
    return explore(made_corpus(), trainer, tmp_path_factory.mktemp("out"), "looked-at", ExploreSettings(top=5))


def test_the_folder_holds_the_page_and_all_that_it_shows(explored: Exploration) -> None:
    page = explored.page.read_text(encoding="utf-8")
    figures = list((explored.folder / "figures").glob("*.png"))
    assert page.count('src="data:image/png;base64,') == len(figures) > 15
    assert not re.search(r"""(src|href)=["']?(https?:|//|figures)""", page)
    assert "<script" not in page
    assert "cats <b>" not in page
    assert not list(explored.folder.rglob(".*"))
    for name, frame in explored.tables.items():
        assert len(pd.read_csv(explored.folder / "tables" / f"{name}.csv")) == len(frame)


def test_the_splits_are_listed_document_by_document(explored: Exploration) -> None:
    splits = pd.read_csv(explored.folder / "tables" / "splits.csv")
    assert splits["split"].value_counts().to_dict() == {"train": 31, "valid": 6, "test": 5}
    first = made_corpus()._documents["train"][1]
    row = splits.iloc[1]
    assert (row["year"], row["party"], row["id"]) == (1801, "Federalist", "d1")
    assert (row["lines"], row["words"], row["characters"]) == (6, len(first.text.split()), len(first.text))
    found = explored.tables["duplicate_documents"].set_index(["in", "also in"])["duplicates"]
    assert found["valid", "train"] == 1
    assert found["test", "train"] == 0


def test_a_sample_is_called_a_sample(tmp_path: Path) -> None:
    settings = ExploreSettings(sample_mebibytes=0.001, word_cloud=False)
    found = explore(made_corpus(), WordTokenizerTrainer(), tmp_path, settings=settings)
    assert not found.is_whole
    assert "This is a sample" in found.page.read_text(encoding="utf-8")


def test_without_the_extra_the_page_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordcloud", None)
    found = explore(made_corpus(), WordTokenizerTrainer(), tmp_path)
    assert "torch-linguist[explore]" in found.page.read_text(encoding="utf-8")
    assert not (found.folder / "figures" / "word_cloud.png").exists()


def test_a_disk_that_fills_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch_linguist.report.page.write_text", full)
    with pytest.raises(LinguistError, match="No space left on device"):
        explore(made_corpus(), WordTokenizerTrainer(), tmp_path, settings=ExploreSettings(word_cloud=False))
    assert list(tmp_path.iterdir()) == []


def test_the_smallest_corpus_has_a_page(tmp_path: Path) -> None:
    corpus = InMemoryCorpus({"train": ["a a\n"], "valid": ["a\n"], "test": ["a\n"]}, name="one")
    assert explore(corpus, WordTokenizerTrainer(), tmp_path).page.is_file()


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model=lstm", "tl-explore takes only data=…, tokenizer=… and their keys"),
        ("explore.tops=3", "nearest: explore.top"),
        ("explore.top=0", "must be at least 1"),
        ("data=sotuu", "nearest: sotu"),
        ("seed=abc", "not an int"),
    ],
)
def test_mistakes_are_one_line(override: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([override]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_the_command_writes_where_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("one two three .\nfour five .\n" * 40, encoding="utf-8")
    assert main(["data=text", "data.path=book.txt", "name=mine", "explore.word_cloud=false"]) == 0
    printed = capsys.readouterr().out
    assert "page: outputs/mine/index.html" in printed
    assert "\n  tl-train data=" in printed, "the next command can be copied"
    assert Path("outputs/mine/explore.yaml").is_file()
    assert main(["data=text", "data.path=none.txt"]) == 1
    assert "data.path=none.txt: no such file" in capsys.readouterr().err


def test_wikitext2_has_the_published_counts(shared_wikitext2: Path) -> None:
    measured = measure(WikiTextCorpus(str(shared_wikitext2)), WordTokenizerTrainer(), ExploreSettings())
    table = totals(measured).set_index("split")
    assert table["tokens"].tolist() == [2_088_628, 217_646, 245_569, 2_551_843]
    assert table.loc["train", "types"] == 33_278
    assert measured.is_whole


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page(explored: Exploration, tmp_path: Path, width: int) -> None:
    shown = show(explored.page, tmp_path, width)
    assert shown.available == width
    assert shown.needed <= shown.available
    assert shown.loaded == shown.pictures > 15
    assert shown.logged == []
