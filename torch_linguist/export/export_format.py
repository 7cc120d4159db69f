"""The base class of export formats. A new format is a subclass in a module of `formats/`, and its test.

The modules of `formats/` import torch inside their methods, so that `tl-export --help` lists them at once.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch_linguist.errors import LinguistError
from torch_linguist.runs.files import whole_file

if TYPE_CHECKING:
    from torch import nn

    from torch_linguist.data import Tokenizer
    from torch_linguist.model import LanguageModel

TOLERANCE = 1e-4
"""Largest accepted difference of a log-probability between the file and the eager model, in nats."""


@dataclass(frozen=True)
class ExportReport:
    """Result of an export.

    Attributes:
        path: path of the file.
        difference: largest difference of a log-probability between the file and the model it was written from, in nats.
        mebibytes: size of the file.
        model: the file, read back as a language model.

    Example:
        >>> export_jit(model, corpus.tokenizer, Path("model.jit")).mebibytes > 0
        True
    """

    path: Path
    difference: float
    mebibytes: float
    model: "LanguageModel"


class ExportFormat(ABC):
    """A way to write a model to a file.

    Attributes:
        name: name of the format and of its option of `tl-export` (`--NAME`).
        file_name: default name of the file in the run folder.
        help: help text of the option.
        description: how to load the file, for the model card.
        is_exact: whether the file computes what the model computes; otherwise the option is `--quantize NAME`.
        takes_mixtures: whether a mixture of models can be written.
        takes_path: whether the option takes the path of the file or folder.
    """

    name: ClassVar[str]
    file_name: ClassVar[str]
    help: ClassVar[str]
    description: ClassVar[str]
    is_exact: ClassVar[bool] = True
    takes_mixtures: ClassVar[bool] = False
    takes_path: ClassVar[bool] = False

    @abstractmethod
    def write(
        self, model: "LanguageModel", tokenizer: "Tokenizer", path: Path, settings: Mapping[str, Any] | None = None
    ) -> ExportReport:
        """Write a model and compare the file with it.

        Args:
            model: the model to write; its mode (train or eval) is restored afterwards.
            tokenizer: tokenizer that the model was trained with.
            path: path of the file. An earlier file is replaced only by a complete, correct one.
            settings: plain values to keep in the file, such as the run's summary.

        Returns:
            The report, with the file read back as a model.

        Raises:
            LinguistError: the model has no such form, the file's outputs differ, or the file cannot be written.
        """

    def take_card(self, path: Path, card: str) -> bool:
        """Put the model card into what was written at a path; False leaves it to a file beside it."""
        return False


class CheckedFile(ExportFormat):
    """A format of one file: serialized in memory, written whole, read back and compared with the model.

    Attributes:
        tolerance: largest accepted difference of a log-probability, in nats.
    """

    tolerance: ClassVar[float] = TOLERANCE

    @abstractmethod
    def serialize(self, network: "nn.Module", tokenizer: "Tokenizer", settings: Mapping[str, Any]) -> bytes:
        """Return the content of the file. `network` is in evaluation mode; see `write` for the arguments."""

    @abstractmethod
    def load(self, path: Path, network: "nn.Module") -> Any:
        """Read a file back as an object with `forward` and `initial_state` of the contract."""

    def network(self, model: "LanguageModel") -> "nn.Module":
        """Return what is written, by default the model itself."""
        return model

    def write(
        self, model: "LanguageModel", tokenizer: "Tokenizer", path: Path, settings: Mapping[str, Any] | None = None
    ) -> ExportReport:
        import torch

        from torch_linguist.export.comparison import ExportAdapter, compare
        from torch_linguist.model import evaluating

        with evaluating(model), torch.no_grad():
            network = self.network(model).eval()
            content = self.serialize(network, tokenizer, settings or {})
            try:
                with whole_file(path) as temporary:
                    temporary.write_bytes(content)
                    loaded = self.load(temporary, network)
                    difference = check_difference(path, compare(network, loaded), self.tolerance)
            except OSError as error:
                raise LinguistError(
                    f"{path}: cannot be written ({error.strerror}); free some space or choose another place"
                ) from error
        adapter = ExportAdapter(loaded, model.vocab_size, model.context_length).eval()
        return ExportReport(path, difference, len(content) / 2**20, adapter)


def check_difference(path: Path, difference: float, tolerance: float = TOLERANCE) -> float:
    """Return the difference of a log-probability between a file and its model.

    Raises:
        LinguistError: it exceeds the tolerance, or is no number.
    """
    if not difference <= tolerance:
        raise LinguistError(
            f"{path}: its log-probabilities differ from the model's by {difference:.2g} nats, more than {tolerance}; "
            "the file was deleted, export in another format"
        )
    return difference


def export_formats() -> list[ExportFormat]:
    """Return one instance of each format in `formats/`: the exact ones by name, then the others.

    Example:
        >>> {"jit", "onnx", "pt2"} <= {one.name for one in export_formats()}
        True
    """
    from torch_linguist.export import formats

    classes: set[type[ExportFormat]] = set()
    for found in pkgutil.iter_modules(formats.__path__, f"{formats.__name__}."):
        module = importlib.import_module(found.name)
        classes |= {
            member
            for member in vars(module).values()
            if isinstance(member, type) and issubclass(member, ExportFormat) and member.__module__ == module.__name__
        }
    return sorted((one() for one in classes), key=lambda one: (not one.is_exact, one.name))
