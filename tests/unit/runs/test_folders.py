"""Which run is meant, and with what configuration a run goes on."""

import os
from pathlib import Path
from typing import Any

import pytest

from torch_linguist.config.checking.node_checks import check_types
from torch_linguist.config.composition import compose_config
from torch_linguist.config.plain import to_plain, to_yaml
from torch_linguist.config.resume import changed_values, find_resumed, resumed_composition
from torch_linguist.config.stored_config import read_run_config
from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.runs.folders import find_run, list_runs, newest_run

BASE = ["model=gru", "model.hidden_size=8", "trainer.max_steps=5", "experiment=debug"]


def make_run(folder: Path, date: int, checkpoint: bool = True, overrides: list[str] | None = None) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    composition = compose_config(BASE if overrides is None else overrides)
    (folder / "config.yaml").write_text(to_yaml(check_types(composition.config), composition.choices))
    if checkpoint:
        (folder / "checkpoints" / "last.pt").touch()
    os.utime(folder / "config.yaml", (date, date))
    return folder


def test_the_newest_run_is_the_one_that_a_person_made(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 1000)
    point = make_run(tmp_path / "grid" / "001", 9000)
    finished = make_run(tmp_path / "b", 2000)
    (tmp_path / "no-run").mkdir()
    assert [run.name for run in list_runs(tmp_path)] == ["b", "a"]
    assert list_runs(tmp_path, of_sweeps=True) == [point]
    (tmp_path / "a" / "summary.json").touch()
    os.utime(tmp_path / "a" / "summary.json", (4000, 4000))
    assert newest_run(tmp_path) == find_run(None, tmp_path) == tmp_path / "a"
    assert find_run(finished, tmp_path) == finished
    assert newest_run(tmp_path / "grid") == point


def test_a_run_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(Path("outputs/lstm"), 1000)
    Path("lstm").mkdir()  # A folder of that name which is no run does not hide it.
    assert find_run(Path("lstm")) == run
    assert find_run(Path("outputs/lstm")) == run
    assert find_run(Path("lstm"), Path("outputs")) == run


def test_a_missing_run_is_answered_with_the_newest_ones(tmp_path: Path) -> None:
    with pytest.raises(LinguistError, match="holds no run; name a run folder, or make one with tl-train"):
        newest_run(tmp_path)
    with pytest.raises(LinguistError, match="nope: no such run; tl-train makes one"):
        find_run(Path("nope"), tmp_path)
    point = make_run(tmp_path / "grid" / "001", 9000)
    with pytest.raises(LinguistError, match=f"holds only runs of sweeps; name one of them, such as {point}"):
        newest_run(tmp_path)
    for number in range(5):
        make_run(tmp_path / f"run{number}", 1000 + number)
    newest = ", ".join(str(tmp_path / f"run{number}") for number in (4, 3, 2))
    with pytest.raises(LinguistError, match=f"nope: no such run; the newest runs are {newest}$"):
        find_run(Path("nope"), tmp_path)
    with pytest.raises(LinguistError, match=f"holds runs but is not a run itself; name one of them, such as {point}"):
        find_run(tmp_path / "grid", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LinguistError, match="is not a run folder"):
        find_run(tmp_path / "empty", tmp_path)


def test_what_resume_means(tmp_path: Path) -> None:
    older = make_run(tmp_path / "older", 1000)
    newer = make_run(tmp_path / "newer", 2000)
    make_run(tmp_path / "newest", 3000, checkpoint=False)
    assert find_resumed(None, tmp_path, None) is None
    assert find_resumed(False, tmp_path, None) is None
    assert find_resumed(True, tmp_path, None) == newer
    assert find_resumed("auto", tmp_path, "older") == older
    assert find_resumed("auto", tmp_path, "other") is None
    assert find_resumed(str(older), tmp_path, None) == older
    with pytest.raises(LinguistError, match=r"^resume=true: .*other holds no run that can continue"):
        find_resumed(True, tmp_path, "other")
    with pytest.raises(LinguistError, match=r"is not a run folder with config\.yaml and progress\.json"):
        find_resumed(str(tmp_path / "newest"), tmp_path, None)


def test_a_name_is_a_folder_in_whatever_spelling_the_file_system_takes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "lstm", 1000)
    (tmp_path / "LSTM").symlink_to(run)  # As on a file system that ignores case.
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "Lstm").symlink_to(run)
    assert find_resumed(True, tmp_path, "LSTM") == tmp_path / "LSTM"
    assert find_resumed(True, tmp_path / "more", "Lstm") == tmp_path / "more" / "Lstm"


def test_a_run_that_has_only_begun_goes_on_too(tmp_path: Path) -> None:
    begun = make_run(tmp_path / "name-2", 1000, checkpoint=False)
    (tmp_path / "name").mkdir()  # Killed before it had written anything.
    assert find_resumed("auto", tmp_path, "name") is None
    (begun / "progress.json").write_text("{}")
    assert find_resumed("auto", tmp_path, "name") == begun


def test_the_runs_own_command_line_goes_on_with_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 1000)
    config, choices = read_run_config(run)
    resumed = resumed_composition(run, compose_config([*BASE, "resume=auto", "name=run"]))
    assert to_plain(resumed.config) == to_plain(config)
    assert resumed.choices == choices
    bare = resumed_composition(run, compose_config(["resume=true"]))
    assert to_plain(bare.config) == to_plain(config)


def test_limits_and_rates_may_change(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 1000)
    line = ["resume=true", "trainer.max_steps=60", "optim.lr=0.01", "stages=[fit]"]
    before, after = to_plain(read_run_config(run)[0]), to_plain(resumed_composition(run, compose_config(line)).config)
    assert (after["trainer"]["max_steps"], after["optim"]["lr"], after["stages"]) == (60, 0.01, ["fit"])
    for name in ("model", "data", "tokenizer", "schedule", "seed"):
        assert after[name] == before[name]
    changes = changed_values(run, resumed_composition(run, compose_config(line)))
    assert changes[0] == "stages: [check,overfit,lr_find,grid,fit,export] → [fit]"
    assert changes[1:] == ["optim.lr: auto → 0.01", "trainer.max_steps: 5 → 60"]
    with pytest.raises(
        ConfigError, match=r"seed=9, model\.hidden_size=9: .* has seed=1, has model\.hidden_size=8, and"
    ):
        resumed_composition(run, compose_config(["resume=true", "seed=9", "model.hidden_size=9"]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.hidden_size=9", "model.hidden_size=9: the run in .* has model.hidden_size=8, and keeps it"),
        ("trainer.batch_size=9", "trainer.batch_size=9: the run in .* has trainer.batch_size=8, and keeps it"),
        ("seed=9", "seed=9: the run in .* has seed=1, and keeps it"),
        ("optim.decay_embeddings=false", "the run in .* has optim.decay_embeddings=true, and keeps it"),
        ("optim.decay_all=true", "the run in .* has optim.decay_all=false, and keeps it"),
        ("optim.layer_decay=0.5", "the run in .* has optim.layer_decay=1.0, and keeps it"),
        ("model=lstm", "model=lstm: the run in .* keeps model=gru;"),
        ("optim=sgd", "optim=sgd: the run in .* keeps optim=lazy_adamw;"),
        ("~trainer.log_every", "a resumed run keeps its keys"),
    ],
)
def test_what_the_weights_depend_on_may_not_change(tmp_path: Path, override: str, message: str) -> None:
    run = make_run(tmp_path / "run", 1000)
    with pytest.raises(ConfigError, match=message):
        resumed_composition(run, compose_config(["resume=true", override]))


@pytest.mark.parametrize(
    "content", ["", "[1]", "a: b", "{", "\x00", "choices: 3", "choices: {}\nx: {_target_: os.system}"]
)
def test_a_strangers_run_is_data(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_run_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_who_names_a_class_trusts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "ownmodels.py").write_text("from torch_linguist.model import GRU\nclass Mine(GRU): ...\n")
    (tmp_path / "model" / "mine.yaml").write_text("_target_: ownmodels.Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    composition = compose_config(["model=mine"], [tmp_path])
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(check_types(composition.config), composition.choices))
    with pytest.raises(ConfigError, match=r"^model\._target_=ownmodels\.Mine: only classes of"):
        resumed_composition(run, compose_config(["resume=true"]))
    again: Any = resumed_composition(run, compose_config(["model=mine", "resume=true"], [tmp_path])).config
    assert again.model._target_ == "ownmodels.Mine"
