"""The model that a command is to work with: of a run folder, or of an exported file alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch_linguist.runs.folders import find_run

if TYPE_CHECKING:
    from torch_linguist.data import Tokenizer
    from torch_linguist.model import LanguageModel


@dataclass(frozen=True, eq=False)
class FoundModel:
    """A model with its tokenizer.

    Attributes:
        source: the run folder or the file.
        model: in eval mode.
        tokenizer: the one it was trained with.
    """

    source: Path
    model: "LanguageModel"
    tokenizer: "Tokenizer"


def find_model(named: Path | None, output_dir: Path) -> FoundModel:
    """Loads the model that is named, or that of the newest run.

    Args:
        named: a run folder, an exported `.jit` file, or None.
        output_dir: where the newest run is looked for.

    Raises:
        LinguistError: there is no such thing, or it is damaged.
    """
    if named is not None and named.is_file():
        from torch_linguist.export import load_jit

        exported = load_jit(named)
        return FoundModel(named, exported.model, exported.tokenizer)
    folder = find_run(named, output_dir)

    from torch_linguist.checkpoint.loaded_run import load_run

    run = load_run(folder)
    return FoundModel(folder, run.model, run.tokenizer)


__all__ = ["FoundModel", "find_model"]
