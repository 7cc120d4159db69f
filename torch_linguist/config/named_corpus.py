"""The corpus that the option `--data` names."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch_linguist.config.composition import compose_config
from torch_linguist.config.instantiation import instantiate
from torch_linguist.config.stored_config import read_run_config

if TYPE_CHECKING:
    from torch_linguist.data import Corpus

HELP = "another corpus: a choice of the group data, NAME:PATH for a local copy, or a file or folder of texts"


def find_corpus(spec: str | None, run: Path) -> "Corpus":
    """Return a named corpus, or the corpus of a run.

    Args:
        spec: NAME, NAME:PATH (`data=NAME data.path=PATH`), a path of texts, or None for the corpus of the run.
        run: run folder.

    Raises:
        LinguistError: there is no such corpus, or it cannot be read.
    """
    if spec is None:
        config, _ = read_run_config(run)
    else:
        name, path = _parsed(spec)
        config = compose_config([f"data={name}"] + ([f"data.path={_quoted(path)}"] if path else [])).config
    corpus: Corpus = instantiate(config.data, "data")
    return corpus


def corpus_label(spec: str) -> str:
    """Return the name of a corpus in tables."""
    name, path = _parsed(spec)
    return f"text:{Path(path).name}" if name == "text" and path else name


def _parsed(spec: str) -> tuple[str, str]:
    name, colon, path = spec.partition(":")
    if not colon and ("/" in spec or Path(spec).exists()) and Path(spec).name:
        return "text", spec
    return name, path


def _quoted(path: str) -> str:
    """A path as a value that Hydra's grammar takes literally."""
    escaped = path.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


__all__ = ["HELP", "corpus_label", "find_corpus"]
