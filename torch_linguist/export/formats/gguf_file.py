"""GGUF: one file for llama.cpp and the programs built on it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch_linguist.errors import LinguistError
from torch_linguist.export.export_format import CheckedFile

if TYPE_CHECKING:
    from torch import nn

    from torch_linguist.data import Tokenizer
    from torch_linguist.model import LanguageModel


class GGUFFile(CheckedFile):
    """A Transformer as `llama`, with its byte-level BPE tokenizer, in float32.

    llama.cpp has no sliding window for this architecture: its results equal the model's within one context, whose
    length the file holds.
    """

    name = "gguf"
    file_name = "model.gguf"
    help = (
        'GGUF for llama.cpp, Ollama, LM Studio; needs pip install "torch-linguist[gguf]"; Transformers without output '
        "bias, tokenizer=bpe"
    )
    description = "GGUF: `llama-cli -m FILE`, Ollama, LM Studio"
    takes_path = True
    number_type: ClassVar[str] = "F32"

    def network(self, model: "LanguageModel") -> "nn.Module":
        if self.is_exact:
            return model
        from torch_linguist.export.gguf_content import rounded

        return rounded(model, self.number_type, f"--quantize {self.name}")

    def serialize(self, network: "nn.Module", tokenizer: "Tokenizer", settings: Mapping[str, Any]) -> bytes:
        try:
            import gguf  # noqa: F401
        except ImportError as error:
            raise LinguistError(
                f'--gguf: needs the package {error.name}; run pip install "torch-linguist[gguf]"'
            ) from error
        from torch_linguist.export.gguf_content import gguf_bytes

        return gguf_bytes(network, tokenizer, self.number_type, str(settings.get("model", "model")))

    def load(self, path: Path, network: "nn.Module") -> Any:
        from torch_linguist.export.gguf_content import read_gguf

        return read_gguf(path, network)


class HalfGGUFFile(GGUFFile):
    """The same with weight matrices in float16."""

    name = "gguf-f16"
    file_name = "model.f16.gguf"
    help = "GGUF with weights in float16"
    is_exact = False
    takes_path = False
    number_type = "F16"


class Int8GGUFFile(GGUFFile):
    """The same with weight matrices in blocks of 32 8-bit integers (Q8_0)."""

    name = "gguf-q8_0"
    file_name = "model.q8_0.gguf"
    help = "GGUF with weights in 8 bits (Q8_0)"
    is_exact = False
    takes_path = False
    number_type = "Q8_0"
