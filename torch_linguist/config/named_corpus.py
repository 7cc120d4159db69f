"""The corpus that `--data` names, or a run's own."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch_linguist.config.composition import compose_config
from torch_linguist.config.data_trust import check_data_trusted
from torch_linguist.config.instantiation import instantiate
from torch_linguist.config.overrides import quoted
from torch_linguist.config.stored_config import read_run_config

if TYPE_CHECKING:
    from torch_linguist.data import Corpus


def find_corpus(spec: str | None, run: Path, *, trusted: bool = False) -> "Corpus":
    """Return the named corpus, or the run's own.

    Args:
        spec: `NAME`, `NAME:PATH` (`data=NAME data.path=PATH`), a path of texts, or None for the run's own corpus.
        run: the run folder.
        trusted: whether the user trusts the run folder to name files and addresses of its own.

    Raises:
        LinguistError: there is no such corpus, it cannot be read, or the run folder is not trusted.
    """
    if spec is None:
        config, _ = read_run_config(run)
        if not trusted:
            check_data_trusted(config, run)
    else:
        name, path = _parsed(spec)
        config = compose_config([f"data={name}"] + ([f"data.path={quoted(path)}"] if path else [])).config
    corpus: Corpus = instantiate(config.data, "data")
    return corpus


def corpus_label(spec: str) -> str:
    """Return the name of a corpus in a table."""
    name, path = _parsed(spec)
    return f"text:{Path(path).name}" if name == "text" and path else name


def _parsed(spec: str) -> tuple[str, str]:
    name, colon, path = spec.partition(":")
    if not colon and ("/" in spec or Path(spec).exists()) and Path(spec).name:
        return "text", spec
    return name, path
