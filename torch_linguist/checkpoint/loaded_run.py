"""A finished run, loaded from its folder: model, tokenizer, summary. The folder is data; nothing in it is executed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_linguist.checkpoint.storage import TRUSTED, load_model
from torch_linguist.data import Tokenizer
from torch_linguist.data.cache import check_tokenizer
from torch_linguist.errors import DataError, LinguistError
from torch_linguist.model import LanguageModel
from torch_linguist.runs.safe_reading import check_contained, read_json


@dataclass(frozen=True)
class LoadedRun:
    """What a run folder holds.

    Attributes:
        folder: where it lies.
        model: the best model, in eval mode, on the CPU.
        tokenizer: its tokenizer.
        summary: the content of `summary.json`; empty where the run has not ended.
    """

    folder: Path
    model: LanguageModel
    tokenizer: Tokenizer
    summary: dict[str, Any]


def load_run(folder: Path | str, trusted: Sequence[str] = TRUSTED) -> LoadedRun:
    """Loads the best model of a run.

    Args:
        folder: of the run.
        trusted: packages, each ending in a dot, whose model classes may be built.

    Raises:
        LinguistError: it is no run folder, the run has no checkpoint yet, a file is damaged, or a link
            leads out of the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LinguistError(f"{folder}: no such run folder")
    check_contained(folder)
    if not (folder / "tokenizer.json").is_file():
        raise LinguistError(f"{folder}: no run folder (it lacks tokenizer.json); give the folder that tl-train made")
    model = load_model(folder / "checkpoints" / "best.pt", trusted)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    try:
        check_tokenizer(tokenizer)
    except DataError as error:
        raise LinguistError(f"{folder}/{error}") from error
    if tokenizer.vocab_size != model.vocab_size:
        raise LinguistError(
            f"{folder}: tokenizer.json has {tokenizer.vocab_size} types, the checkpoint {model.vocab_size}; "
            "they are not of one run"
        )
    path = folder / "summary.json"
    summary = read_json(path) if path.is_file() else {}
    if not isinstance(summary, dict):
        raise LinguistError(f"{path}: not the summary of a run; tl-train writes one")
    return LoadedRun(folder, model, tokenizer, summary)
