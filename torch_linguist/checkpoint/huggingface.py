"""Checkpoints of Llama and Mistral type in the layout of `transformers`, from a folder or from the hub."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_linguist.checkpoint.init_from import HUGGINGFACE, StartingPoint
from torch_linguist.data import Tokenizer
from torch_linguist.data.tokenizers.huggingface import from_huggingface
from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.model import LanguageModel, Transformer
from torch_linguist.model.stock_architecture import arguments_of, from_stock
from torch_linguist.runs.safe_reading import read_json

FILES = ["*.json", "*.safetensors"]
"""Files of a repository on the hub that are downloaded."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def read_huggingface(source: str) -> StartingPoint:
    """Read a checkpoint, except for its weights, which `load` reads.

    Args:
        source: `hf:` and a folder, or an id on the hub (`owner/name`).

    Raises:
        LinguistError: there is no such checkpoint, its architecture is not known, or its tokenizer does not fit.
    """
    folder = _folder(source)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise LinguistError(
                f"init_from={source}: has no {name}, so it is not a checkpoint of transformers; give the folder that "
                "save_pretrained wrote for the model and its tokenizer"
            )
    where = str(folder / "config.json")
    arguments = arguments_of(read_json(folder / "config.json"), where)
    size = _embedding_rows(folder, source)
    description, names = (_mapping(folder / name) for name in ("tokenizer.json", "tokenizer_config.json"))
    tokenizer = from_huggingface(description, names, size, f"init_from={source}")

    def load(model: LanguageModel, _: Tokenizer) -> str:
        weights = from_stock(_read_weights(folder, source), arguments, f"init_from={source}")
        expected = dict(model.named_parameters())
        for name, weight in weights.items():
            if weight.shape != expected[name].shape:
                raise LinguistError(
                    f"init_from={source}: {name} is {list(weight.shape)}, config.json says "
                    f"{list(expected[name].shape)}; the files do not belong together"
                )
        with torch.no_grad():
            for name, weight in weights.items():
                expected[name].copy_(weight)
        return f"weights of {folder}: {sum(weight.numel() for weight in weights.values()):,} parameters"

    return StartingPoint(source, Transformer, arguments, tokenizer, load)


def _folder(source: str) -> Path:
    """Return the folder of a checkpoint, downloaded if it is on the hub."""
    name = source.removeprefix(HUGGINGFACE)
    if Path(name).is_dir():
        return Path(name)
    if not _HUB_ID.fullmatch(name):
        raise ConfigError(f"init_from={source}: there is no such folder; give a folder, or hf:OWNER/NAME on the hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise LinguistError(
            f"init_from={source}: is not a folder, and the hub does not provide it ({reason}); download it, then give "
            "the folder"
        ) from error


def _mapping(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise LinguistError(f"{path}: holds no settings; give the folder that save_pretrained wrote")
    return content


def _weight_files(folder: Path, source: str) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise LinguistError(
            f"init_from={source}: has no model.safetensors; load it with transformers, then save_pretrained(…)"
        )
    return files


def _embedding_rows(folder: Path, source: str) -> int:
    """Return the number of rows of the embedding, without reading it."""
    safetensors = _safetensors()
    for path in _weight_files(folder, source):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                if "model.embed_tokens.weight" in file.keys():  # noqa: SIM118 - no mapping
                    return int(file.get_slice("model.embed_tokens.weight").get_shape()[0])
        except (safetensors.SafetensorError, OSError) as error:
            raise LinguistError(f"{path}: cannot be read ({error}); copy it again") from error
    raise LinguistError(f"init_from={source}: has no model.embed_tokens.weight; it is not a complete checkpoint")


def _read_weights(folder: Path, source: str) -> dict[str, Tensor]:
    """Return the weights of all files, in float32."""
    safetensors = _safetensors()
    weights: dict[str, Tensor] = {}
    for path in _weight_files(folder, source):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                weights |= {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - no mapping
        except (safetensors.SafetensorError, OSError) as error:
            raise LinguistError(f"{path}: cannot be read ({error}); copy it again") from error
    return weights


def _safetensors() -> Any:
    try:
        import safetensors
    except ImportError as error:
        raise LinguistError(
            'init_from=hf: needs the package safetensors; run pip install "torch-linguist[hf]"'
        ) from error
    return safetensors
