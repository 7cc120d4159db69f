"""Runs on their own corpus, as `tl-eval` and `tl-analyze` read them."""

from pathlib import Path

import pytest
from conftest import made_text

from torch_linguist.checkpoint import load_run
from torch_linguist.config.named_corpus import analyzed_runs, evaluate_folders
from torch_linguist.config.training_run import compose_training, run_training
from torch_linguist.errors import ConfigError, DataError
from torch_linguist.evaluation.run_evaluation import EvaluationSettings
from torch_linguist.model.ngram import write_arpa


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two runs on one folder of texts: the newer one has read a file that was added after the older one."""
    monkeypatch.setenv("TORCH_LINGUIST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "texts").mkdir()
    for number in range(10):
        (tmp_path / "texts" / f"{number}.txt").write_text(made_text(20, number))
    line = ["data=text", f"data.path={tmp_path}/texts", "model=ngram", "stages=[fit]", f"output_dir={tmp_path}"]
    run_training(compose_training([*line, "name=older"])[0])
    (tmp_path / "texts" / "new.txt").write_text(made_text(20, 77))
    run_training(compose_training([*line, "name=newer"])[0])
    return [tmp_path / "newer", tmp_path / "older"]


def test_an_arpa_file_is_analyzed_on_a_named_corpus(runs: list[Path], tmp_path: Path) -> None:
    run, path = load_run(runs[0]), tmp_path / "model.arpa"
    write_arpa(run.model, run.tokenizer.tokens, path)
    texts = str(tmp_path / "texts")
    own, read = (analyzed_runs([model], "valid", texts)[0].evaluation.score.loss for model in (runs[0], path))
    assert read == pytest.approx(own, abs=1e-4)
    assert len(analyzed_runs([runs[0], path], "valid")) == 2
    with pytest.raises(ConfigError, match="names no corpus; add --data"):
        analyzed_runs([path], "valid")


def test_every_run_is_held_against_the_corpus_it_was_trained_on(runs: list[Path]) -> None:
    assert len(analyzed_runs(runs[:1], "valid")) == 1
    for read in (lambda: analyzed_runs(runs, "valid"), lambda: evaluate_folders(runs, EvaluationSettings())):
        with pytest.raises(DataError, match="older: the text, its splits or the tokenizer have changed"):
            read()
