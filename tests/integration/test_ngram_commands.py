"""The n-gram model through the commands: trained, exported, scored, mixed with a neural model."""

import json
import re
from pathlib import Path

import pytest
import torch
from small_runs import write_tale

from torch_linguist.cli import eval as evaluation
from torch_linguist.cli import export, generate, score, train

SMALL = ["model.embedding_dim=16", "model.hidden_size=16", "optim.lr=0.01", "optim.weight_decay=0"]

pytestmark = pytest.mark.xdist_group("commands")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an n-gram run and an LSTM run of one small text."""
    folder = tmp_path_factory.mktemp("ngram")
    write_tale(folder)
    line = ["data=text", f"data.path={folder / 'tale.txt'}", f"output_dir={folder}"]
    assert train.main([*line, "model=ngram", "model.order=3", "name=counted"]) == 0
    assert train.main([*line, "experiment=debug", "model=lstm", *SMALL, "name=trained"]) == 0
    return folder


def test_it_goes_through_the_stages_it_has(runs: Path) -> None:
    summary = json.loads((runs / "counted" / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "finished"
    assert summary["lr"] is None
    assert set(summary["stages"]) == {"check", "fit", "export"}
    assert summary["test"]["perplexity"] < summary["baselines"]["unigram"]["test"]["perplexity"]


def test_its_export_gives_distributions(runs: Path) -> None:
    exported = torch.jit.load(str(runs / "counted" / "model.jit"))  # type: ignore[no-untyped-call]
    logits, _ = exported(torch.tensor([[0, 1, 2]]), exported.initial_state(1))
    assert torch.allclose(logits.exp().sum(-1), torch.ones(1, 3, dtype=logits.dtype), atol=1e-9)


def test_a_neural_run_shows_one_as_its_baseline(runs: Path) -> None:
    summary = json.loads((runs / "trained" / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["baselines"]) == {"2-gram", "unigram"}


def test_scores_are_those_of_the_summary(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluation.main([str(runs / "counted"), "--split", "valid", "test"]) == 0
    shown = capsys.readouterr().out
    summary = json.loads((runs / "counted" / "summary.json").read_text(encoding="utf-8"))
    for split in ("valid", "test"):
        assert f"{summary[split]['perplexity']:.2f}" in shown


def test_a_mixture_is_scored_beside_its_parts(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluation.main([str(runs / "counted"), str(runs / "trained"), "--mix", "--split", "valid"]) == 0
    shown = capsys.readouterr().out
    losses = [float(found) for found in re.findall(r"valid\s+[\d,]+\s+([\d.]+)", shown)]
    assert len(losses) == 3
    assert losses[2] <= min(losses[:2]) + 1e-4


def test_one_run_cannot_be_mixed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluation.main([str(runs / "counted"), "--mix"]) == 2
    assert "--mix" in capsys.readouterr().err


def test_a_quantized_run_and_its_arpa_file_go_through_the_commands(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, run, arpa = runs / "tale.txt", runs / "compact", tmp_path / "compact.arpa.gz"
    options = ["model=ngram", "model.order=3", "model.quantize_bits=8", "model.memory_limit_mib=16", "name=compact"]
    assert train.main(["data=text", f"data.path={text}", f"output_dir={runs}", *options]) == 0
    exact, own = (json.loads((runs / name / "summary.json").read_text())["test"] for name in ("counted", "compact"))
    assert own["perplexity"] == pytest.approx(exact["perplexity"], rel=1e-3)
    assert export.main([str(run), "--arpa", str(arpa)]) == 0
    lines = tmp_path / "lines.txt"
    lines.write_text("line 3 tells that 3\nthey meet again .\n", encoding="utf-8")
    capsys.readouterr()
    for model in (run, arpa):
        assert score.main([str(model), str(lines)]) == 0
        assert generate.main([str(model), "-p", "line 3 tells", "--max-tokens", "5", "--greedy"]) == 0
    shown = capsys.readouterr().out.splitlines()
    half = len(shown) // 2
    scores = [[float(row.split("\t")[1]) for row in part[1:3]] for part in (shown[:half], shown[half:])]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert shown[3:half] == shown[half + 3 :]
    assert evaluation.main([str(arpa), "--data", f"text:{text}", "--split", "all"]) == 0
    assert evaluation.main([str(arpa)]) == 2
    assert "names no corpus; add --data" in capsys.readouterr().err
    assert export.main([str(arpa), "--jit"]) == 0
    assert (tmp_path / "model.jit").is_file()
