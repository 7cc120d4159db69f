"""The model that a command works with: that of a run, or of an exported file."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch_linguist.cli.run_arguments import find_runs

if TYPE_CHECKING:
    from torch_linguist.data import Tokenizer
    from torch_linguist.model import LanguageModel


@dataclass(frozen=True, eq=False)
class FoundModel:
    """A model with its tokenizer.

    Attributes:
        source: run folder or exported file.
        model: the model, in eval mode.
        tokenizer: tokenizer that the model was trained with.
    """

    source: Path
    model: "LanguageModel"
    tokenizer: "Tokenizer"


def find_model(arguments: Namespace) -> FoundModel:
    """Load the model of the run or `.jit` file that `arguments.runs` names, or of the newest run."""
    named = arguments.runs
    if named is not None and named.is_file():
        from torch_linguist.export import load_jit

        exported = load_jit(named)
        return FoundModel(named, exported.model, exported.tokenizer)
    (folder,) = find_runs(arguments, to_stderr=True)

    from torch_linguist.checkpoint.loaded_run import load_run

    run = load_run(folder)
    return FoundModel(folder, run.model, run.tokenizer)
