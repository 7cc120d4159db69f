"""Trainings that start at the same instant, and trainings that never begin."""

from pathlib import Path

import pytest

from torch_linguist.config.training_run import compose_training, run_training
from torch_linguist.errors import LinguistError
from torch_linguist.runs.lock import run_lock


@pytest.mark.parametrize("begun", [False, True])
def test_of_two_starts_at_the_same_instant_one_trains(tmp_path: Path, begun: bool) -> None:
    line = [f"output_dir={tmp_path}", "name=long", "resume=auto", "experiment=debug"]
    (tmp_path / "long").mkdir()
    if begun:
        (tmp_path / "long" / "check.json").write_text("{}")
    with run_lock(tmp_path / "long"), pytest.raises(LinguistError, match="long: is in use by process"):
        run_training(compose_training(line)[0])
    assert [path.name for path in tmp_path.iterdir()] == ["long"]


def test_a_hub_out_of_reach_leaves_no_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    line = ["data=wikitext2", "data.hub_id=nobody/no-such-corpus", f"output_dir={tmp_path}", "trainer.max_steps=1"]
    with pytest.raises(LinguistError, match="hub"):
        run_training(compose_training(line)[0])
    assert list(tmp_path.iterdir()) == []
