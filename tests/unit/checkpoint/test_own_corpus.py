"""A run's own corpus: scored only as long as it is the text that the run was trained on."""

import json
from pathlib import Path

import pytest
from conftest import build, made_text

from torch_linguist.checkpoint.loaded_run import LoadedRun
from torch_linguist.data import TextCorpus, WordTokenizerTrainer, prepare
from torch_linguist.data.identity import corpus_facts
from torch_linguist.errors import DataError
from torch_linguist.evaluation.run_evaluation import RunOnCorpus


@pytest.fixture
def run(tmp_path: Path) -> LoadedRun:
    """A run on ten documents, of which some were drawn for valid and test."""
    (tmp_path / "texts").mkdir()
    for number in range(10):
        (tmp_path / "texts" / f"{number}.txt").write_text(made_text(20, number))
    corpus = prepare(TextCorpus(str(tmp_path / "texts")), WordTokenizerTrainer(min_frequency=1))
    (tmp_path / "progress.json").write_text(json.dumps({"stages": {}, "corpus": corpus_facts(corpus)}))
    return LoadedRun(tmp_path, build("gru", corpus.tokenizer.vocab_size), corpus.tokenizer, {})


def test_the_same_text_is_scored_with_the_run_s_tokenizer(run: LoadedRun) -> None:
    own = RunOnCorpus.prepare("run", run, TextCorpus(str(run.folder / "texts")), own=True)
    assert own.corpus.num_documents == 10


def test_a_new_file_that_moves_documents_between_splits_is_an_error(run: LoadedRun) -> None:
    (run.folder / "texts" / "new.txt").write_text(made_text(20, 77))
    changed = TextCorpus(str(run.folder / "texts"))
    with pytest.raises(DataError, match=r"have changed since the run began .* --data") as caught:
        RunOnCorpus.prepare("run", run, changed, own=True)
    assert "\n" not in str(caught.value)
    assert RunOnCorpus.prepare("run", run, changed).corpus.num_documents == 11  # As another corpus.


def test_a_change_that_keeps_every_count_is_an_error(run: LoadedRun) -> None:
    path = run.folder / "texts" / "0.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[1:], lines[0]]))
    with pytest.raises(DataError, match=r"\((train|valid|test) checksum: "):
        run.own_corpus(TextCorpus(str(run.folder / "texts")))


def test_facts_that_an_earlier_version_did_not_record_are_no_change(run: LoadedRun) -> None:
    content = json.loads((run.folder / "progress.json").read_text())
    content["corpus"] = {key: fact for key, fact in content["corpus"].items() if "checksum" not in key}
    (run.folder / "progress.json").write_text(json.dumps(content))
    assert run.own_corpus(TextCorpus(str(run.folder / "texts"))).num_documents == 10
