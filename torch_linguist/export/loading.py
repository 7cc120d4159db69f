"""Loads an exported TorchScript file as a model with its tokenizer; no run folder is needed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.export.comparison import ExportAdapter
from torch_linguist.export.torchscript import quiet_torchscript
from torch_linguist.runs.safe_reading import check_archive

CODE_LIMIT = 64 * 2**20
"""Largest size in bytes of the code of a TorchScript file, which torch compresses."""


@dataclass(frozen=True, eq=False)
class LoadedExport:
    """Content of a `.jit` file.

    Attributes:
        model: the model in evaluation mode, on the CPU.
        tokenizer: tokenizer that the model was trained with.
        settings: facts about the run, as written at export.

    Example:
        >>> _ = export_jit(model, corpus.tokenizer, Path("model.jit"), settings={"seed": 1})
        >>> load_jit(Path("model.jit")).settings["seed"]
        1
    """

    model: ExportAdapter
    tokenizer: Tokenizer
    settings: dict[str, Any]


def load_jit(path: Path) -> LoadedExport:
    """Load a file that `export_jit` wrote. TorchScript is code: load only files from people you trust.

    Raises:
        LinguistError: the file is not a TorchScript file, or not one of `export_jit`.

    Example:
        >>> _ = export_jit(model, corpus.tokenizer, Path("model.jit"))
        >>> loaded = load_jit(Path("model.jit"))
        >>> generate(loaded.model, loaded.tokenizer, "the cat", max_tokens=1, greedy=True)
        ['the cat sat']
    """
    check_archive(path, CODE_LIMIT)
    extra: dict[str, Any] = {"tokenizer.json": "", "settings.json": ""}
    try:
        with quiet_torchscript():
            module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError, ValueError) as error:
        raise LinguistError(
            f"{path}: is neither a run folder nor a complete file of tl-export --jit; other formats cannot be loaded"
        ) from error
    texts = {name: text.decode() if isinstance(text, bytes) else text for name, text in extra.items()}
    if not texts["tokenizer.json"] or not hasattr(module, "context_length"):
        raise LinguistError(f"{path}: holds no tokenizer; export the run again with tl-export --jit")
    tokenizer = Tokenizer.from_json(texts["tokenizer.json"])
    try:
        settings = json.loads(texts["settings.json"])
    except (ValueError, RecursionError) as error:
        raise LinguistError(f"{path}: its settings are not readable ({error}); export the run again") from error
    model = ExportAdapter(module.eval(), int(module.vocab_size), int(module.context_length))
    if model.vocab_size != tokenizer.vocab_size:
        raise LinguistError(
            f"{path}: its tokenizer has {tokenizer.vocab_size} types, its model {model.vocab_size}; export it again"
        )
    return LoadedExport(model.eval(), tokenizer, settings)
