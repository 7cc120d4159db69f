"""A folder for Hugging Face `transformers`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_linguist.errors import LinguistError
from torch_linguist.export.export_format import ExportFormat, ExportReport, check_difference
from torch_linguist.runs.files import whole_folder, write_text

if TYPE_CHECKING:
    from torch_linguist.data import Tokenizer
    from torch_linguist.model import LanguageModel


class HuggingFaceFolder(ExportFormat):
    """Weights, configuration, tokenizer and model card, as `from_pretrained` and `pipeline` load them.

    A Transformer with SwiGLU and one linear output without bias becomes `MistralForCausalLM` with a sliding window,
    which needs no further code. Any other model is TorchScript with a small modeling file
    (`trust_remote_code=True`). The folder is built aside and moved into place as a whole.
    """

    name = "hf"
    file_name = "hf"
    help = 'a folder for transformers: weights, tokenizer, card; needs pip install "torch-linguist[hf]"; every model'
    description = '`transformers`: `pipeline("text-generation", FOLDER)`; see its README.md'
    takes_mixtures = True
    takes_path = True

    def write(
        self, model: "LanguageModel", tokenizer: "Tokenizer", path: Path, settings: Mapping[str, Any] | None = None
    ) -> ExportReport:
        _check_packages()
        from torch_linguist.export.comparison import ExportAdapter, compare
        from torch_linguist.export.huggingface.folder import FolderReader, readme, write_folder
        from torch_linguist.export.model_card import model_card
        from torch_linguist.model import evaluating

        if path.exists() and not (path / "config.json").is_file() and (path.is_file() or any(path.iterdir())):
            raise LinguistError(f"--hf {path}: exists and holds no exported model; choose another folder")
        with evaluating(model), whole_folder(path) as temporary:
            write_folder(temporary, model, tokenizer, settings or {})
            card = model_card(path.name, settings or {}, "tl-export --hf", [])
            (temporary / "README.md").write_text(readme(card, temporary), encoding="utf-8")
            reader = FolderReader(temporary)
            difference = check_difference(path, compare(model, reader))
            size = sum(file.stat().st_size for file in temporary.iterdir())
        adapter = ExportAdapter(reader, model.vocab_size, model.context_length).eval()
        return ExportReport(path, difference, size / 2**20, adapter)

    def take_card(self, path: Path, card: str) -> bool:
        from torch_linguist.export.huggingface.folder import readme

        write_text(path / "README.md", readme(card, path))
        return True


def _check_packages() -> None:
    try:
        import safetensors  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise LinguistError(f'--hf: needs the package {error.name}; run pip install "torch-linguist[hf]"') from error
