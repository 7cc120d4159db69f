"""An exported file, loaded as a model with its tokenizer; no run folder is needed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.export.comparison import ForeignModel
from torch_linguist.export.torchscript import quiet_torchscript


@dataclass(frozen=True, eq=False)
class LoadedExport:
    """What a `model.jit` holds.

    Attributes:
        model: under the contract of all models, in eval mode, on the CPU.
        tokenizer: the one it was trained with.
        settings: what is known of its run.
    """

    model: ForeignModel
    tokenizer: Tokenizer
    settings: dict[str, Any]


def load_jit(path: Path) -> LoadedExport:
    """Loads what `export_jit` wrote. TorchScript is code: load files only from those you trust.

    Raises:
        LinguistError: it is no such file, or lacks what an export of ours holds.
    """
    extra: dict[str, Any] = {"tokenizer.json": "", "settings.json": ""}
    try:
        with quiet_torchscript():
            module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError, ValueError) as error:
        raise LinguistError(
            f"{path}: is neither a run folder nor a whole file of tl-export --jit; other formats are loaded by others"
        ) from error
    texts = {name: text.decode() if isinstance(text, bytes) else text for name, text in extra.items()}
    if not texts["tokenizer.json"] or not hasattr(module, "context_length"):
        raise LinguistError(f"{path}: holds no tokenizer; it is no file of tl-export --jit, or of an older version")
    tokenizer = Tokenizer.from_json(texts["tokenizer.json"])
    try:
        settings = json.loads(texts["settings.json"])
    except ValueError as error:
        raise LinguistError(f"{path}: its settings are not readable ({error}); export the run again") from error
    model = ForeignModel(module.eval(), int(module.vocab_size), int(module.context_length))
    if model.vocab_size != tokenizer.vocab_size:
        raise LinguistError(
            f"{path}: its tokenizer has {tokenizer.vocab_size} types, its model {model.vocab_size}; export the run anew"
        )
    return LoadedExport(model.eval(), tokenizer, settings)
