"""A run folder opens a corpus only if it is built in, or if its user has named it before."""

from pathlib import Path

import pytest

from torch_linguist.config.checking.data_trust import check_data_trusted, remember_data
from torch_linguist.config.checking.node_checks import check_types
from torch_linguist.config.composition import compose_config
from torch_linguist.config.named_corpus import find_corpus
from torch_linguist.config.plain import to_yaml
from torch_linguist.config.stored_config import read_run_config
from torch_linguist.errors import LinguistError


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_LINGUIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run_on(folder: Path, *overrides: str) -> Path:
    """A run folder whose configuration these overrides gave, written by somebody else."""
    composition = compose_config(overrides)
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(check_types(composition.config), composition.choices))
    return folder


@pytest.mark.parametrize(
    "overrides", [["data=sotu", "data.seed=7"], ["data=wikitext2"], ["data=c4"], ["data=lm1b"], ["data=text8"]]
)
def test_a_built_in_corpus_is_opened(overrides: list[str], tmp_path: Path) -> None:
    run = run_on(tmp_path / "run", *overrides)
    check_data_trusted(read_run_config(run)[0], run)


@pytest.mark.parametrize(
    ("overrides", "source"),
    [
        (["data=text", "data.path=/etc/passwd"], "data.path=/etc/passwd"),
        (["data=text", "data.path=https://example.org/x"], "data.path=https://example.org/x"),
        (["data=wikitext2", "data.path=/etc"], "data.path=/etc"),
        (["data=c4", "data.hub_id=somebody/else"], "data.hub_id=somebody/else"),
        (["data=text8", "data.files={train: /etc/passwd}"], "data.hub_id=afmck/text8"),
    ],
)
def test_what_only_the_folder_names_is_refused(overrides: list[str], source: str, tmp_path: Path) -> None:
    run = run_on(tmp_path / "run", *overrides)
    with pytest.raises(LinguistError, match="which you have not trained on here; add --trust-data") as caught:
        find_corpus(None, run)
    assert source in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_user_named_before_is_opened_wherever_the_run_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tale.txt").write_text("a tale\n" * 50, encoding="utf-8")
    overrides = ["data=text", "data.path=tale.txt"]
    run = run_on(tmp_path / "run", *overrides)
    with pytest.raises(LinguistError, match="--trust-data"):
        find_corpus(None, run)
    assert find_corpus(None, run, trusted=True).name == "text"
    remember_data(compose_config(overrides).config)
    assert find_corpus(None, run).name == "text"
    assert find_corpus(None, run.rename(tmp_path / "moved")).name == "text"
    # The same relative path means another file elsewhere.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(LinguistError, match="--trust-data"):
        find_corpus(None, tmp_path / "moved")


def test_a_corpus_that_the_command_line_names_needs_no_trust(tmp_path: Path) -> None:
    (tmp_path / "tale.txt").write_text("a tale\n" * 50)
    run = run_on(tmp_path / "run", "data=text", "data.path=/etc/passwd")
    assert find_corpus(str(tmp_path / "tale.txt"), run).name == "text"


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, empty_cache: Path) -> None:
    empty_cache.write_text("a file in its place", encoding="utf-8")
    with pytest.raises(LinguistError, match=r"cannot be written .*TORCH_LINGUIST_CACHE"):
        remember_data(compose_config([]).config)
