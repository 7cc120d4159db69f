"""safetensors: the weights alone, with what is needed to build the model again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_linguist.errors import LinguistError
from torch_linguist.export.export_format import CheckedFile
from torch_linguist.runs.files import finite

if TYPE_CHECKING:
    from torch import nn

    from torch_linguist.data import Tokenizer


class SafetensorsFile(CheckedFile):
    """Weights by the names of the state dict; a tied weight is stored once.

    The metadata holds the class and the arguments of the model, the summary of the run and the tokenizer, as JSON.
    """

    name = "safetensors"
    file_name = "model.safetensors"
    help = 'safetensors: the weights; needs pip install "torch-linguist[hf]"; every model but mixtures'
    description = "safetensors: the weights by name; the metadata holds the model's arguments and the tokenizer"
    takes_path = True

    def serialize(self, network: "nn.Module", tokenizer: "Tokenizer", settings: Mapping[str, Any]) -> bytes:
        try:
            from safetensors.torch import save
        except ImportError as error:
            raise LinguistError(
                f'--safetensors: needs the package {error.name}; run pip install "torch-linguist[hf]"'
            ) from error
        cls = type(network)
        described = {"target": f"{cls.__module__}.{cls.__qualname__}", "arguments": getattr(network, "arguments", {})}
        metadata = {
            "format": "pt",
            "model": json.dumps(finite(described), default=list),
            "settings": json.dumps(finite(dict(settings)), ensure_ascii=False),
            "tokenizer.json": tokenizer.to_json(),
        }
        kept, seen = {}, set()
        for name, tensor in network.state_dict().items():
            place = (tensor.data_ptr(), tensor.shape)
            if tensor.numel() == 0 or place not in seen:
                kept[name] = tensor.detach().cpu().contiguous()
                seen.add(place)
        return bytes(save(kept, metadata))

    def load(self, path: Path, network: "nn.Module") -> Any:
        import copy

        from safetensors.torch import load_file

        loaded = copy.deepcopy(network)
        stored = load_file(path)
        missing = loaded.load_state_dict(stored, strict=False).missing_keys
        if {name for name in missing if not name.endswith("output.weight")}:
            raise LinguistError(f"{path}: lacks {missing[0]}; export in another format")
        return loaded
