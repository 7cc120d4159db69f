"""`init_from=`: a training that begins with the weights of an existing model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_linguist.checkpoint.loaded_run import load_run
from torch_linguist.checkpoint.storage import load_model, save_checkpoint
from torch_linguist.checkpoint.transfer import transfer_weights
from torch_linguist.data import Tokenizer
from torch_linguist.errors import ConfigError, LinguistError, require_one_of
from torch_linguist.model import LanguageModel

HUGGINGFACE = "hf:"
"""Prefix of a checkpoint in the layout of `transformers`."""

VOCABULARIES = ("keep", "new")

START = Path("checkpoints", "start.pt")
"""Copy of the weights that a run begins with, in its folder: a resumed run does not need the source again."""


@dataclass(frozen=True)
class StartingPoint:
    """An existing model that a training begins with.

    Attributes:
        source: value of `init_from`.
        family: class of the model.
        arguments: arguments of its constructor that replace the configured ones.
        tokenizer: tokenizer to keep; None trains a new one.
        load: puts the weights into a model of `family`, given the tokenizer of the training; returns a sentence for
            the user.
    """

    source: str
    family: type[LanguageModel]
    arguments: Mapping[str, Any]
    tokenizer: Tokenizer | None
    load: Callable[[LanguageModel, Tokenizer], str]

    def check_family(self, family: Any) -> None:
        """Check that the configured model is of the same family.

        Raises:
            ConfigError: it is another one.
        """
        if family is not self.family:
            name = self.family.__name__
            raise ConfigError(f"init_from={self.source}: is a {name}; add model={name.lower()}")


def starting_point(source: str, vocabulary: str = "keep") -> StartingPoint:
    """Return the model that `init_from=` names.

    Args:
        source: run folder, or `hf:FOLDER_OR_ID`.
        vocabulary: `keep` the tokenizer of the model, or train a `new` one, whose known tokens take their rows of the
            embedding and the output.

    Raises:
        LinguistError: there is no such model, or it cannot be read.
    """
    require_one_of("init_vocabulary", vocabulary, VOCABULARIES)
    if not source.startswith(HUGGINGFACE):
        return _read_run(source, vocabulary)
    if vocabulary != "keep":
        raise ConfigError(f"init_vocabulary={vocabulary}: a checkpoint of transformers keeps its tokenizer; set keep")
    from torch_linguist.checkpoint.huggingface import read_huggingface

    return read_huggingface(source)


def _read_run(source: str, vocabulary: str) -> StartingPoint:
    try:
        run = load_run(Path(source).expanduser())
    except LinguistError as error:
        raise LinguistError(f"init_from={source}: {error}") from error
    if run.model.is_counted:
        raise ConfigError(f"init_from={source}: is a model fitted by counting; there are no weights to begin with")
    if vocabulary == "new":
        run.model.vocabulary_parameters()

    def load(model: LanguageModel, tokenizer: Tokenizer) -> str:
        return f"weights of {source}: {transfer_weights(run.model, run.tokenizer, model, tokenizer)}"

    kept = run.tokenizer if vocabulary == "keep" else None
    return StartingPoint(source, type(run.model), _sizes(run.model), kept, load)


def save_start(folder: Path, model: LanguageModel) -> None:
    """Keep the weights that a run begins with in its folder."""
    save_checkpoint(folder / START, model, {})


def saved_start(folder: Path, source: str, vocabulary: str) -> StartingPoint | None:
    """Return the starting point of a run that has begun before, from the run's own folder.

    Args:
        folder: run folder.
        source: value of `init_from`.
        vocabulary: see `starting_point`.

    Returns:
        None if the run stopped before it had read the weights.

    Raises:
        LinguistError: the copy cannot be read.
    """
    if not (folder / START).is_file():
        return None
    saved = load_model(folder / START)

    def load(model: LanguageModel, _: Tokenizer) -> str:
        model.load_state_dict(saved.state_dict())
        return f"weights of {source}, from {folder / START}"

    kept = Tokenizer.load(folder / "tokenizer.json") if vocabulary == "keep" else None
    return StartingPoint(source, type(saved), _sizes(saved), kept, load)


def _sizes(model: LanguageModel) -> dict[str, Any]:
    """Return the arguments that belong to the weights; dropout rates belong to the training."""
    return {name: value for name, value in model.arguments.items() if "dropout" not in name and name != "vocab_size"}
