"""A callback and a stage of a user's own package join by a YAML file each."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from torch_linguist.cli.train import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "experiment=debug", "data.max_documents=16", "tokenizer.max_size=300", "model.hidden_size=8",
    "model.embedding_dim=8", "optim.lr=0.01", "optim.weight_decay=0", "score.baseline_order=0",
]  # fmt: skip
STAGE = """
from dataclasses import dataclass
from typing import ClassVar

from torch_linguist.pipeline.stages import Stage, StageResult


@dataclass(frozen=True)
class CountWords(Stage):
    name = "count_words"
    title = "counting words"
    artifacts: ClassVar = {"words": "words.txt"}

    longest: int = 3

    def run(self, context):
        tokens = context.training.corpus.tokenizer.tokens
        count = sum(len(token) <= self.longest for token in tokens)
        (context.folder / "words.txt").write_text(str(count))
        return StageResult(f"{count} short words", {"count": count})
"""
COUNTING_CALLBACK = """
from torch_linguist.trainer import Callback


class CountUpdates(Callback):
    def __init__(self, path: str) -> None:
        self.path, self.updates = path, 0

    def after_update(self, training):
        self.updates += 1

    def training_ended(self, training):
        open(self.path, "w").write(str(self.updates))

    def state_dict(self):
        return {"updates": self.updates}

    def load_state_dict(self, state):
        self.updates = state["updates"]
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file `my_package.py` of a user, importable; the current folder is beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "my_package.py"
    sys.modules.pop("my_package", None)


def add(file: str, *lines: str) -> None:
    path = Path("DIR") / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_the_callback_of_the_documentation_ends_the_training(package: Path) -> None:
    section = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## Add your own")[1]
    package.write_text(section.split("```python\n")[1].split("```")[0], encoding="utf-8")
    add("callbacks/stop_below.yaml", "_target_: my_package.StopBelow", "loss: 4.5")
    line = ["--config-dir", "DIR", "callbacks=stop_below", "stages=[fit]", "name=run", *SMALL]
    assert main([*line, "callbacks.stop_below.loss=9"]) == 0
    summary = json.loads(Path("outputs/run/summary.json").read_text(encoding="utf-8"))
    assert summary["train"]["reason"] == "validation loss below 9.0"
    assert summary["train"]["steps"] == 25


def test_several_callbacks_keep_their_state_over_a_resumption(package: Path) -> None:
    package.write_text(COUNTING_CALLBACK, encoding="utf-8")
    for name in ("one", "two"):
        add(f"callbacks/{name}.yaml", "_target_: my_package.CountUpdates", f"path: {name}.txt")
    line = ["--config-dir", "DIR", "callbacks=[one,two]", "name=run", "stages=[fit]", *SMALL]
    assert main([*line, "trainer.max_steps=7"]) == 0
    assert Path("one.txt").read_text(encoding="utf-8") == Path("two.txt").read_text(encoding="utf-8") == "7"
    assert main([*line, "resume=outputs/run", "trainer.max_steps=9"]) == 0
    assert Path("one.txt").read_text(encoding="utf-8") == Path("two.txt").read_text(encoding="utf-8") == "9"


def test_loggers_are_chosen_and_joined_by_name(package: Path) -> None:
    package.write_text(
        "from torch_linguist.report.loggers import Logger\n\n\n"
        "class Lines(Logger):\n"
        "    def __init__(self, path: str) -> None:\n        self.path = path\n\n"
        "    def start(self, run):\n"
        "        with open(self.path, 'a') as file:\n"
        "            print(run.name, run.resumed_at, run.parameters['trainer.max_steps'], file=file)\n",
        encoding="utf-8",
    )
    add("logger/lines.yaml", "_target_: my_package.Lines", "path: lines.txt")
    line = ["--config-dir", "DIR", "logger=lines", "name=run", "stages=[fit]", *SMALL]
    assert main([*line, "trainer.max_steps=7"]) == 0
    assert main([*line, "resume=outputs/run", "trainer.max_steps=9"]) == 0
    assert Path("lines.txt").read_text(encoding="utf-8") == "run None 7\nrun 7 9\n"
    assert Path("outputs/run/metrics.csv").is_file()
    assert not Path("outputs/run/tensorboard").exists()


def test_a_run_folder_brings_no_callback_of_its_own(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package.write_text(COUNTING_CALLBACK, encoding="utf-8")
    add("callbacks/one.yaml", "_target_: my_package.CountUpdates", "path: one.txt")
    assert main(["--config-dir", "DIR", "callbacks=one", "name=run", "stages=[fit]", *SMALL]) == 0
    for target in ("my_package.CountUpdates", "torch_linguist.trainer.callbacks.metrics_log.MetricsLog"):
        config = Path("outputs/run/config.yaml")
        config.write_text(
            config.read_text(encoding="utf-8").replace("my_package.CountUpdates", target), encoding="utf-8"
        )
        capsys.readouterr()
        assert main(["--config-dir", "outputs/run"]) == 2
        assert f"callbacks.one._target_={target}: " in capsys.readouterr().err


def test_a_stage_of_ones_own_runs_where_it_is_listed(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package.write_text(STAGE, encoding="utf-8")
    add("stage/count_words.yaml", "# Counts short words", "_target_: my_package.CountWords", "longest: 3")
    line = ["--config-dir", "DIR", "name=run", "stages=[check,count_words,fit]", *SMALL]
    assert main([*line, "count_words.longest=2"]) == 0
    out = capsys.readouterr().out
    assert out.index("[check] done") < out.index("[count_words] done") < out.index("[fit] done")
    summary = json.loads(Path("outputs/run/summary.json").read_text(encoding="utf-8"))
    assert list(summary["stages"]) == ["check", "count_words", "fit"]
    assert summary["artifacts"]["words"] == "words.txt"
    assert Path("outputs/run/words.txt").read_text(encoding="utf-8") == str(summary["stages"]["count_words"]["count"])
    # A run that continues does not repeat it; one that repeats the run does.
    assert main([*line, "resume=outputs/run", "count_words.longest=2", "trainer.max_steps=60"]) == 0
    assert "[count_words]" not in capsys.readouterr().out
    with Path("outputs/run/metrics.csv").open(encoding="utf-8", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)][-1] == "60"
    assert main(["--config-dir", "outputs/run", "--config-dir", "DIR", "stages=[count_words]", "name=again"]) == 0
    assert Path("outputs/again/words.txt").is_file()
    assert main(["--config-dir", "DIR", "--help"]) == 0
    assert "count_words  Counts short words" in capsys.readouterr().out


def test_a_stage_whose_file_has_another_name_is_refused(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package.write_text(STAGE, encoding="utf-8")
    add("stage/mine.yaml", "_target_: my_package.CountWords")
    assert main(["--config-dir", "DIR", "stages=[mine]"]) == 2
    assert "mine._target_=my_package.CountWords: is named count_words; call its file" in capsys.readouterr().err
    assert main(["--config-dir", "DIR", "stages=[nope]"]) == 2
    assert "stages=[nope]: no such stage; choose from check, initialize, " in capsys.readouterr().err
