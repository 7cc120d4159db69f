"""Where configuration files are found, and what is told of them."""

from pathlib import Path

import pytest

from torch_linguist.config import catalog as catalog
from torch_linguist.config.catalog import GROUPS, config_root, find_groups, nearest, unknown_choice
from torch_linguist.errors import ConfigError

CHECKOUT = Path(__file__).resolve().parents[3]


def test_a_checkout_reads_its_own_files() -> None:
    assert config_root() == CHECKOUT / "configs"


def test_an_installed_package_reads_the_files_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "torch_linguist"
    monkeypatch.setattr(catalog, "__file__", str(package / "config" / "catalog.py"))
    assert config_root() == package / "configs"


def test_a_second_checkout_reads_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(catalog, "__file__", str(tmp_path / "torch_linguist" / "config" / "catalog.py"))
    assert config_root() == tmp_path / "configs"


def test_every_file_is_a_choice_with_a_summary() -> None:
    groups = find_groups()
    assert tuple(groups)[: len(GROUPS)] == GROUPS
    files = {path for path in config_root().rglob("*.yaml") if path.parent != config_root()}
    choices = [choice for group in groups.values() for choice in group.values()]
    assert {choice.path for choice in choices} == files
    assert not [choice.path for choice in choices if not choice.summary]


def test_a_users_folder_adds_choices_and_groups(tmp_path: Path) -> None:
    for name in ("model/mine.yaml", "model/deep/one.yaml", "paths/home.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("# @package _global_\n# My own\nkey: 1\n")
    groups = find_groups([tmp_path])
    assert groups["model"]["mine"].summary == "My own"
    assert {"lstm", "mine", "deep/one"} <= set(groups["model"])
    assert list(groups["paths"]) == ["home"]


def test_a_users_file_does_not_lose_silently(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "lstm.yaml").touch()
    with pytest.raises(ConfigError, match=r"model=lstm exists already, .*rename the file"):
        find_groups([tmp_path])


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^--config-dir nowhere: there is no such folder$"):
        find_groups([Path("nowhere")])


def test_nearest_and_unknown_choice() -> None:
    assert nearest("lsmt", ["gru", "lstm", "rnn"]) == ["lstm"]
    assert str(unknown_choice("model", "lsmt", ["rnn", "lstm"])) == (
        "model=lsmt: there is no such model; nearest: lstm. Choices: lstm, rnn"
    )
    assert str(unknown_choice("model", "zzz", ["rnn"])) == "model=zzz: there is no such model. Choices: rnn"
