"""`init_from=RUN`: one corpus, then another; `model.embedding_from`."""

import json
from pathlib import Path

import conftest
import pytest
import torch

from torch_linguist import load_run
from torch_linguist.cli.train import main

SMALL = ["experiment=debug", "stages=[fit]", "optim.lr=0.01", "optim.weight_decay=0", "trainer.max_steps=6",
         "score.baseline_order=0", "model.hidden_size=24", "model.embedding_dim=16"]  # fmt: skip


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A trained run `first`, and the words that train on another text."""
    monkeypatch.chdir(tmp_path)
    for index, name in enumerate(("one", "two")):
        Path(f"{name}.txt").write_text(f"animals{name} " * 20 + conftest.made_text(400, index), encoding="utf-8")
    assert main(["data=text", "data.path=one.txt", "name=first", *SMALL]) == 0
    return ["data=text", "data.path=two.txt", *SMALL]


def test_a_run_begins_with_the_weights_of_another(first: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    start = load_run("outputs/first")
    capsys.readouterr()
    assert main([*first, "init_from=outputs/first", "name=kept", "model.hidden_size=99"]) == 0
    assert "initialize: weights of outputs/first: " in capsys.readouterr().out
    kept = load_run("outputs/kept")
    assert kept.tokenizer.to_json() == start.tokenizer.to_json()
    assert kept.model.arguments["hidden_size"] == 24, "sizes are those of the weights"

    options = ["init_vocabulary=new", "optim.layer_decay=0.5", "trainer.freeze=2"]
    assert main([*first, "init_from=outputs/first", "name=new", *options]) == 0
    assert "tokens are known, the others start at the mean" in capsys.readouterr().out
    new = load_run("outputs/new")
    assert "animalstwo" in new.tokenizer.tokens
    assert "animalstwo" not in start.tokenizer.tokens


@pytest.mark.parametrize("vocabulary", ["keep", "new"])
def test_a_run_that_has_begun_does_not_need_its_source(first: list[str], vocabulary: str) -> None:
    words = [*first, f"init_vocabulary={vocabulary}", "init_from=outputs/first"]
    assert main([*words, "name=whole", "trainer.max_steps=8"]) == 0
    assert main([*words, "name=part"]) == 0
    Path("outputs/first").rename("outputs/gone")
    assert main([*words, "resume=outputs/part", "trainer.max_steps=8"]) == 0
    assert json.loads(Path("outputs/part/summary.json").read_text(encoding="utf-8"))["train"]["steps"] == 8
    # A repetition trains from the first update on, so it needs the weights themselves.
    assert main(["--config-dir", "outputs/whole", "name=again"]) == 0
    whole, again = (load_run(f"outputs/{name}").model.state_dict() for name in ("whole", "again"))
    assert all(torch.equal(weight, again[name]) for name, weight in whole.items())
    # Before the first stage there is only the source.
    Path("outputs/part/checkpoints/start.pt").unlink()
    assert main([*words, "resume=outputs/part", "trainer.max_steps=9"]) == 1


def test_word_vectors_and_mistakes(first: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    tokens = load_run("outputs/first").tokenizer.tokens[:9]
    lines = "\n".join(f"{token} {' '.join(['0.5'] * 16)}" for token in tokens)
    Path("vectors.txt").write_text(f"9 16\n{lines}\n", encoding="utf-8")
    options = ["model.embedding_from=vectors.txt", "model.freeze_embedding=true"]
    assert main([*first, "name=vectors", *options]) == 0
    assert "embedding from vectors.txt: " in capsys.readouterr().out
    run = load_run("outputs/vectors")
    found = [index for index, token in enumerate(run.tokenizer.tokens) if token in tokens]
    weight = run.model.get_parameter("embedding.weight")
    assert all(weight[index].std() == 0 for index in found), "frozen"
    for words, message in (
        (["init_from=nowhere"], "init_from=nowhere: nowhere: no such run folder"),
        (["init_from=outputs/first", "model=gru"], "init_from=outputs/first: is a LSTM; add model=lstm"),
        (["init_from=outputs/first", "init_vocabulary=old"], "init_vocabulary=old: must be one of keep, new"),
        (["init_from=outputs/first", "model.embedding_from=vectors.txt"], "leave one of them out"),
        (["model.embedding_from=none.txt"], "none.txt: cannot be read"),
        (["model.embedding_from=vectors.txt", "model.embedding_dim=8"], "set model.embedding_dim=16"),
    ):
        assert main([*first, "name=wrong", *words]) in (1, 2)
        assert message in capsys.readouterr().err
