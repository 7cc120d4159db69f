"""From a trained model to one file that runs where torch_linguist is not installed.

Shape legend: B batch, T time, V vocabulary.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.model import LanguageModel, device_of
from torch_linguist.trainer.run_folder import finite, whole_file

TOLERANCE = 1e-4
"""Largest difference of a log-probability between the exported and the eager model, in nats."""

SHAPES = ((1, 1), (2, 7), (3, 32))
"""Batch sizes and lengths that an export is compared on."""


class ExportedModel(nn.Module):
    """What `model.jit` holds: `forward(tokens, state)` and `initial_state(batch_size)` of the contract.

    Args:
        model: any scriptable model.
    """

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model
        self.vocab_size: int = model.vocab_size
        self.context_length: int = model.context_length

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits [B, T, V] after tokens [B, T], and the new state."""
        logits, new_state = self.model(tokens, state)
        return logits, new_state

    @torch.jit.export
    def initial_state(self, batch_size: int) -> list[Tensor]:
        """The state before any token."""
        return self.model.initial_state(batch_size)


@dataclass(frozen=True)
class ExportReport:
    """What an export came to.

    Attributes:
        path: of the file.
        difference: largest difference of a log-probability between the file and the eager model, in nats.
        mebibytes: size of the file.
    """

    path: Path
    difference: float
    mebibytes: float


def export_jit(
    model: LanguageModel, tokenizer: Tokenizer, path: Path, settings: Mapping[str, Any] | None = None
) -> ExportReport:
    """Writes a model as TorchScript and compares the file with the eager model.

    The file loads with `torch.jit.load` alone and takes any batch size and length. It carries `tokenizer.json`,
    `vocabulary.json` (a list, id -> token) and `settings.json` as extra files.

    Args:
        model: any scriptable model; it is left in the mode it was in.
        tokenizer: the one the model was trained with.
        path: of the file; an earlier one is replaced only by a whole new one.
        settings: plain types that are kept in the file (the run's summary, say).

    Returns:
        Where it is, and how close to the eager model.

    Raises:
        LinguistError: the file's outputs differ from the eager model's, or it cannot be written.
    """
    content = {"vocab_size": model.vocab_size, "eos_id": tokenizer.eos_id, "unk_id": tokenizer.unk_id}
    extra = {
        "tokenizer.json": tokenizer.to_json(),
        "vocabulary.json": json.dumps(tokenizer.tokens, ensure_ascii=False),
        "settings.json": json.dumps(finite({**content, **(settings or {})}), ensure_ascii=False, allow_nan=False),
    }
    mode = model.training
    model.eval()
    try:
        with whole_file(path) as temporary, warnings.catch_warnings():
            # TorchScript is deprecated upstream; who asks for it knows.
            warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
            scripted = torch.jit.script(ExportedModel(model))
            torch.jit.save(scripted, str(temporary), _extra_files=extra)
            difference = compare(model, torch.jit.load(str(temporary), map_location="cpu"))  # type: ignore[no-untyped-call]
            if not difference <= TOLERANCE:
                raise LinguistError(
                    f"{path.name}: its log-probabilities differ from the eager model's by {difference:.2g} nats, "
                    f"more than {TOLERANCE}; the export was thrown away"
                )
    except OSError as error:
        raise LinguistError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    finally:
        model.train(mode)
    return ExportReport(path, difference, path.stat().st_size / 2**20)


def compare(model: LanguageModel, exported: Any) -> float:
    """The largest difference between two models' log-probabilities in nats, over several shapes and two calls each.

    Args:
        model: eager, in eval mode.
        exported: has `forward` and `initial_state` of the contract.

    Returns:
        The difference; not a number where either model gives one that is none.
    """
    device = device_of(model)
    generator = torch.Generator().manual_seed(0)
    gaps: list[Tensor] = []
    with torch.no_grad():
        for batch_size, length in SHAPES:
            state, exported_state = model.initial_state(batch_size), exported.initial_state(batch_size)
            for _ in range(2):
                tokens = torch.randint(model.vocab_size, (batch_size, length), generator=generator)
                logits, state = model(tokens.to(device), state)
                other, exported_state = exported(tokens, exported_state)
                gap = torch.log_softmax(logits.cpu().double(), -1) - torch.log_softmax(other.double(), -1)
                gaps.append(gap.abs().max())
    # The maximum of tensors, unlike Python's, does not lose what is not a number.
    return float(torch.stack(gaps).max())
