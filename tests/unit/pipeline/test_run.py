"""The six stages in one process, on a made corpus, and what the run folder holds afterwards."""

import csv
import functools
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_plans import STAGES, plan_of, quiet, run_and_output

from torch_linguist import load_run
from torch_linguist.checkpoint import load_model
from torch_linguist.data import InMemoryCorpus, TokenizedCorpus
from torch_linguist.errors import ConfigError, LinguistError, TrainingError
from torch_linguist.evaluation import score, unigram_score
from torch_linguist.model import GRU, LSTM, RNN, Transformer
from torch_linguist.pipeline import run
from torch_linguist.pipeline.short_training import NOISE
from torch_linguist.pipeline.stages import FitStage, Grid, LRFind
from torch_linguist.trainer import Fit
from torch_linguist.trainer.callbacks.metrics_log import MetricsLog

SCORE = {"tokens", "words", "bytes", "oov_rate", "loss", "perplexity", "word_perplexity", "bits_per_byte"}
SUMMARY = {
    "status", "model", "data", "tokenizer", "vocab_size", "parameters", "seed", "lr", "weight_decay", "device",
    "precision", "versions", "git", "train", "valid", "test", "artifacts",
}  # fmt: skip
TRAIN = {"tokens", "epochs", "seconds", "tokens_per_second", "peak_memory_mib"}
ALL = {
    "check.json", "overfit.csv", "overfit.png", "lr_finder.csv", "lr_finder.png", "lr_trials.csv", "grid.csv",
    "grid.png", "metrics.csv", "curves.png", "tensorboard", "checkpoints", "model.jit", "config.yaml",
    "tokenizer.json", "summary.json", "progress.json", ".lock",
}  # fmt: skip
NO_ARTIFACTS = {"summary.json", "checkpoints", "progress.json", ".lock"}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, source_corpus: InMemoryCorpus, own_cache: Path
) -> tuple[Path, dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("runs") / "one"
    summary, output = run_and_output(plan_of(folder, source_corpus))
    return folder, summary, output


def test_all_artifacts_are_there(finished: tuple[Path, dict[str, Any], str]) -> None:
    folder, summary, _ = finished
    assert {path.name for path in folder.iterdir()} == ALL
    assert {path.name for path in (folder / "checkpoints").iterdir()} <= {"best.pt", "last.pt", "previous.pt"}
    assert set(summary["artifacts"].values()) == ALL - NO_ARTIFACTS | {
        "checkpoints/best.pt", "checkpoints/last.pt"
    }  # fmt: skip
    for path in summary["artifacts"].values():
        assert not Path(path).is_absolute()
        assert (folder / path).exists()
    assert sorted(path.suffix == ".final" for path in (folder / "tensorboard" / folder.name).glob("events.*")) == [
        False,
        True,
    ]
    assert (folder / "config.yaml").read_text() == "seed: 1\n"


def test_searching_first_leaves_no_trace_in_the_weights(
    finished: tuple[Path, dict[str, Any], str], source_corpus: InMemoryCorpus, tmp_path: Path
) -> None:
    folder, summary, _ = finished
    given = {"lr": summary["lr"], "weight_decay": summary["weight_decay"]}
    run(plan_of(tmp_path / "given", source_corpus, stages=["fit"], **given), quiet())
    for name in ("best.pt", "last.pt"):
        searched, alone = (load_model(place / "checkpoints" / name) for place in (folder, tmp_path / "given"))
        pairs = zip(searched.state_dict().items(), alone.state_dict().items(), strict=True)
        assert all(one == other and torch.equal(mine, yours) for (one, mine), (other, yours) in pairs)


def test_the_best_point_is_printed_as_a_command(finished: tuple[Path, dict[str, Any], str]) -> None:
    _, summary, output = finished
    flat = " ".join(output.split())
    point = f"optim.lr={summary['lr']!r} optim.weight_decay={summary['weight_decay']!r}"
    assert "tl-train --config-dir " in flat
    assert point.replace(" ", "") in flat.replace(" ", "")


def test_the_summary_has_the_fields_of_the_design(
    finished: tuple[Path, dict[str, Any], str], tiny_corpus: TokenizedCorpus
) -> None:
    folder, summary, _ = finished
    written = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(summary))
    assert set(written) >= SUMMARY
    assert (written["status"], written["model"], written["data"], written["tokenizer"]) == (
        "finished", "lstm", "made", "word"
    )  # fmt: skip
    assert (written["seed"], written["device"], written["precision"]) == (1, "cpu", "fp32")
    assert written["vocab_size"] == tiny_corpus.tokenizer.vocab_size
    model = LSTM(tiny_corpus.tokenizer.vocab_size, embedding_dim=8, hidden_size=8)
    assert written["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert set(written["train"]) >= TRAIN
    assert written["train"]["tokens"] == 12 * 32
    assert written["train"]["peak_memory_mib"] > 10
    for split in ("valid", "test"):
        found, stream = written[split], tiny_corpus.streams[split]
        assert set(found) == SCORE
        assert (found["tokens"], found["words"], found["bytes"]) == (len(stream), stream.words, stream.bytes)
        assert found["oov_rate"] == stream.oov / len(stream)
        assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
        assert written["baselines"]["unigram"][split] == unigram_score(tiny_corpus.token_counts(), stream).as_dict()
    assert written["versions"]["torch"] == torch.__version__.partition("+")[0] or "+" in written["versions"]["torch"]


def test_the_point_that_is_trained_is_within_noise_of_the_best(finished: tuple[Path, dict[str, Any], str]) -> None:
    folder, summary, _ = finished

    def within_noise(table: str) -> list[dict[str, str]]:
        with (folder / table).open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["status"] == "finished"]
        lowest = min(float(row["valid_loss"]) for row in rows)
        return [row for row in rows if float(row["valid_loss"]) <= lowest + NOISE]

    points = [(float(row["lr"]), float(row["weight_decay"])) for row in within_noise("grid.csv")]
    assert (summary["lr"], summary["weight_decay"]) in points
    rates = [float(row["lr"]) for row in within_noise("lr_trials.csv")]
    assert summary["lr"] == min(rates, key=lambda lr: abs(math.log(lr / LRFind().default)))
    check = json.loads((folder / "check.json").read_text())
    assert check["expected"] == pytest.approx(math.log(summary["vocab_size"]))
    assert check["passed"] is True


def test_the_terminal_tells_the_story(finished: tuple[Path, dict[str, Any], str]) -> None:
    _, summary, text = finished
    for stage in STAGES:
        assert f"[{stage}] done" in text
    for part in ("unigram", f"{summary['test']['perplexity']:.2f}", "model.jit", "valid loss"):
        assert part in text


@pytest.mark.parametrize("moved", [False, True])
def test_a_loaded_run_scores_as_the_summary_says(
    moved: bool, finished: tuple[Path, dict[str, Any], str], tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    folder, summary, _ = finished
    if moved:
        folder = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    loaded = load_run(folder)
    assert loaded.summary == json.loads((folder / "summary.json").read_text())
    assert loaded.tokenizer.to_json() == tiny_corpus.tokenizer.to_json()
    for split in ("valid", "test"):
        assert score(loaded.model, tiny_corpus.streams[split]).as_dict() == pytest.approx(summary[split])


def test_the_exported_file_scores_alike(
    finished: tuple[Path, dict[str, Any], str], tiny_corpus: TokenizedCorpus
) -> None:
    folder, summary, _ = finished
    model = torch.jit.load(folder / "model.jit")  # type: ignore[no-untyped-call]
    ids = torch.tensor(tiny_corpus.test.ids.astype("int64"))
    inputs = torch.cat([torch.tensor([tiny_corpus.test.eos_id]), ids[:-1]])
    state, total = model.initial_state(1), 0.0
    with torch.no_grad():
        for begin in range(0, len(ids), 37):
            logits, state = model(inputs[None, begin : begin + 37], state)
            total += float(torch.nn.functional.cross_entropy(logits[0], ids[begin : begin + 37], reduction="sum"))
    assert total / len(ids) == pytest.approx(summary["test"]["loss"], abs=1e-4)


@pytest.mark.parametrize(
    ("make_model", "options"),
    [
        (functools.partial(Transformer, embedding_dim=8, num_layers=1, num_heads=1, context_length=8), {}),
        (functools.partial(GRU, embedding_dim=8, hidden_size=8, tied=True), {"accumulate": 2, "batches": "windows"}),
    ],
    ids=["transformer", "gru"],
)
def test_given_numbers_turn_the_stages_off_that_would_find_them(
    make_model: Callable[..., Any], options: dict[str, Any], source_corpus: InMemoryCorpus, tmp_path: Path
) -> None:
    plan = plan_of(tmp_path, source_corpus, make_model=make_model, lr=0.01, weight_decay=0.0, settings=options)
    summary = run(plan, quiet())
    assert (summary["status"], summary["lr"], summary["weight_decay"]) == ("finished", 0.01, 0.0)
    left_out = {"lr_finder.csv", "lr_finder.png", "lr_trials.csv", "grid.csv", "grid.png"}
    assert {path.name for path in tmp_path.iterdir()} == ALL - left_out
    assert list(summary["stages"]) == ["check", "overfit", "fit", "export"]
    assert load_run(tmp_path).model.context_length == (8 if "Transformer" in str(make_model) else 0)


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({"lr": 0.01}, ["grid", "fit"]),
        ({"weight_decay": 0.1}, ["lr_find", "fit"]),
    ],
)
def test_one_given_number(
    options: dict[str, float], stages: list[str], source_corpus: InMemoryCorpus, tmp_path: Path
) -> None:
    summary = run(plan_of(tmp_path, source_corpus, stages=["lr_find", "grid", "fit"], **options), quiet())
    assert list(summary["stages"]) == stages
    for key, value in options.items():
        assert summary[key] == value


def test_a_text_learned_by_heart_is_noted(finished: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    # Nothing can be learned from random words, so the validation loss only rises.
    drawn = np.random.default_rng(0).choice([*"abcdefgh"], 1200)
    texts = [" ".join(drawn[begin : begin + 300]) for begin in range(0, 1200, 300)]
    corpus = InMemoryCorpus({"train": texts[:2], "valid": [texts[2]], "test": [texts[3]]}, name="random")
    options = {"max_steps": 60, "eval_every": 10, "eval_tokens": None}
    summary, output = run_and_output(
        plan_of(tmp_path, corpus, stages=["fit"], lr=0.05, weight_decay=0.0, settings=options)
    )
    assert summary["train"]["best_step"] < 30
    assert f"no validation after update {summary['train']['best_step']} of 60 was better" in " ".join(output.split())
    assert "no validation after" not in finished[2]


def test_auto_without_its_stages_takes_the_defaults(source_corpus: InMemoryCorpus, tmp_path: Path) -> None:
    summary, output = run_and_output(plan_of(tmp_path, source_corpus, stages=["fit"]))
    updates_per_pass = summary["train"]["steps"] / summary["train"]["epochs"]
    assert summary["lr"] == 3e-3
    assert summary["weight_decay"] == pytest.approx(min(1.0, 1 / (1.5 * 3e-3 * updates_per_pass)), rel=0.03)
    assert output.count("note: optim.") == 2


def test_stages_without_a_training(source_corpus: InMemoryCorpus, tmp_path: Path) -> None:
    summary = run(plan_of(tmp_path, source_corpus, stages=["check"]), quiet())
    assert (summary["status"], summary["valid"], summary["train"]) == ("finished", None, None)
    with pytest.raises(LinguistError, match="no such checkpoint"):
        load_run(tmp_path)


def test_a_run_that_fails_says_so(
    source_corpus: InMemoryCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TrainingError("step 3: the training loss is nan")

    monkeypatch.setattr(Fit, "run", fail)
    with pytest.raises(TrainingError, match="step 3"):
        run(plan_of(tmp_path, source_corpus, stages=["check", "fit", "export"], lr=0.01), quiet())
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "step 3: the training loss is nan" in summary["error"]
    assert set(summary) >= SUMMARY
    assert "jit" not in summary["artifacts"]


def test_a_grid_of_diverged_points_ends_in_one_line(source_corpus: InMemoryCorpus, tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path, source_corpus, lr=1e15, make_optimizer=torch.optim.SGD,
        make_model=functools.partial(RNN, embedding_dim=8, hidden_size=8, nonlinearity="relu"),
        settings={"gradient_clip": None},
    )  # fmt: skip
    plan = replace(plan, stages=[Grid(steps=20, weight_decay=[0.0, 0.1]), FitStage()])
    with pytest.raises(LinguistError, match=r"grid: every point diverged.*optim\.lr"):
        run(plan, quiet())
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"
    assert (tmp_path / "grid.png").is_file()


def test_an_interrupted_run_is_scored_and_exported(
    source_corpus: InMemoryCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_update = MetricsLog.after_update

    def interrupted(self: MetricsLog, training: Fit) -> None:
        after_update(self, training)
        if training.state.step == 8:
            assert training.context.stop_request is not None
            training.context.stop_request.signal_number = 2

    monkeypatch.setattr(MetricsLog, "after_update", interrupted)
    summary = run(plan_of(tmp_path, source_corpus, lr=0.01, weight_decay=0.0), quiet())
    assert (summary["status"], summary["signal"], summary["train"]["steps"]) == ("interrupted", 2, 8)
    assert set(summary["valid"]) == SCORE
    assert (tmp_path / "model.jit").is_file()
    monkeypatch.undo()
    resumed = run(plan_of(tmp_path, source_corpus, lr=0.01, weight_decay=0.0, resume=True), quiet())
    assert (resumed["status"], resumed["train"]["steps"]) == ("finished", 12)
    straight = run(plan_of(tmp_path / "straight", source_corpus, lr=0.01, weight_decay=0.0), quiet())
    assert resumed["test"] == straight["test"]


def test_a_vocabulary_of_next_to_nothing_still_runs(tmp_path: Path) -> None:
    line = "no no no no no no no no\n" * 20
    corpus = InMemoryCorpus({"train": [line], "valid": [line], "test": [line]}, name="one", tokenized=True)
    summary = run(plan_of(tmp_path, corpus, lr=0.01, weight_decay=0.0), quiet())
    assert (summary["vocab_size"], summary["status"]) == (3, "finished")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"stages": ["export"]}, r"stages=\[export\]: needs fit before it"),
        ({"lr": -1.0}, "optim.lr=-1.0"),
        ({"lr": math.nan}, "optim.lr=nan"),
        ({"weight_decay": -0.1}, "optim.weight_decay=-0.1"),
    ],
)
def test_a_plan_that_cannot_be_is_named(
    options: dict[str, Any], names: str, source_corpus: InMemoryCorpus, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=names):
        plan_of(tmp_path, source_corpus, **options)
