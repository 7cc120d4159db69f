"""`init_from=`: a training that begins with the weights of an existing model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch_linguist.data import Tokenizer
from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel

HUGGINGFACE = "hf:"
"""Prefix of a checkpoint in the layout of `transformers`."""


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


def starting_point(source: str) -> StartingPoint:
    """Return the model that `init_from=` names.

    Args:
        source: `hf:FOLDER_OR_ID`.

    Raises:
        LinguistError: there is no such model, or it cannot be read.
    """
    if source.startswith(HUGGINGFACE):
        from torch_linguist.checkpoint.huggingface import read_huggingface

        return read_huggingface(source)
    raise ConfigError(f"init_from={source}: must be hf:FOLDER or hf:OWNER/NAME")
