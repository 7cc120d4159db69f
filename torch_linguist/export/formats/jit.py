"""TorchScript: one file that maps text to text with torch alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_linguist.export.export_format import CheckedFile

if TYPE_CHECKING:
    from torch import nn

    from torch_linguist.data import Tokenizer


class TorchScriptFile(CheckedFile):
    """TorchScript with the tokenizer inside; see `ScriptedModel` for its methods.

    The file takes any batch size and length. It carries `tokenizer.json`, `vocabulary.json` (a list, id -> token) and
    `settings.json` as extra files. Every model can be written, mixtures included.
    """

    name = "jit"
    file_name = "model.jit"
    help = "TorchScript: any batch size and length, and text; needs torch alone; every model, and mixtures"
    description = 'TorchScript: `torch.jit.load(FILE).generate("text", 50)`; needs only torch'
    takes_mixtures = True

    def serialize(self, network: "nn.Module", tokenizer: "Tokenizer", settings: Mapping[str, Any]) -> bytes:
        from torch_linguist.export.torchscript import scripted_bytes

        return scripted_bytes(network, tokenizer, settings)

    def load(self, path: Path, network: "nn.Module") -> Any:
        import torch

        from torch_linguist.export.torchscript import quiet_torchscript

        with quiet_torchscript():
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
