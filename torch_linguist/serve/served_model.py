"""Models under the names that clients use."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch_linguist.checkpoint import LoadedRun
from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.export.html import packed_text
from torch_linguist.model import LanguageModel, Mixture
from torch_linguist.runs.folders import run_labels


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model that the server offers.

    Attributes:
        name: name that requests give.
        model: model in evaluation mode.
        tokenizer: tokenizer of the model.
        summary: content of the run's `summary.json`.
        curves: learning curves of the run, if there are any.

    Example:
        >>> from torch_linguist.serve import ServedModel
        >>> ServedModel("bigram", model, corpus.tokenizer).token_names[:2]
        ['<eos>', '<unk>']
    """

    name: str
    model: LanguageModel
    tokenizer: Tokenizer
    summary: dict[str, Any] = field(default_factory=dict)
    curves: Path | None = None

    @cached_property
    def token_names(self) -> list[str]:
        """A text for each token that tells it from all others; bytes that are no text are written out, as by OpenAI."""
        names = []
        for token, piece in enumerate(self.tokenizer.pieces):
            name = self.tokenizer.surface(token)
            if "\ufffd" in name and self.tokenizer.is_byte_level:
                name = "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
            names.append(name)
        return names

    @cached_property
    def page_model(self) -> bytes:
        """The model as JSON that the page runs, with 8-bit weights.

        Raises:
            LinguistError: the page has no code for this model.
        """
        description, weights = packed_text(self.model)
        return json.dumps({"model": description, "weights": weights}).encode()


def served_models(runs: Sequence[LoadedRun], weights: Sequence[float] | None = None) -> list[ServedModel]:
    """Return the models of runs, named like their folders, and a model named `mixture` if there are weights.

    Args:
        runs: at least one run.
        weights: weight of each run in the mixture; None for no mixture.

    Raises:
        LinguistError: there is no run, or the runs cannot be mixed.
    """
    if not runs:
        raise LinguistError("runs: there must be at least one")
    models = [
        ServedModel(name, run.model.eval(), run.tokenizer, run.summary, run.folder / "curves.png")
        for name, run in zip(run_labels([run.folder for run in runs]), runs, strict=True)
    ]
    if weights is not None:
        if len({run.tokenizer.to_json() for run in runs}) > 1:
            raise LinguistError("--weights: the runs have different tokenizers; train them with one tokenizer")
        mixture = Mixture([run.model for run in runs], weights).eval()
        models.append(ServedModel("mixture", mixture, runs[0].tokenizer, {"model": "mixture of the models above"}))
    return models
