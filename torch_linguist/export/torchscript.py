"""From a trained model to one TorchScript file that runs where torch_linguist is not installed.

Shape legend: B batch, T time, V vocabulary.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.export.comparison import TOLERANCE, ExportReport, compare
from torch_linguist.export.scripted_text import ScriptedText
from torch_linguist.generation.sampling import filter_logits
from torch_linguist.model import LanguageModel
from torch_linguist.runs.files import finite, whole_file


class ExportedModel(nn.Module):
    """What `model.jit` holds: the contract's `forward` and `initial_state`, and text in, text out.

    Args:
        model: any scriptable model.
        tokenizer: the one it was trained with.
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model = model
        self.text = ScriptedText(tokenizer)
        self.vocab_size: int = int(model.vocab_size)  # type: ignore[arg-type]
        self.context_length: int = int(model.context_length)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits [B, T, V] after tokens [B, T], and the new state."""
        logits, new_state = self.model(tokens, state)
        return logits, new_state

    @torch.jit.export
    def initial_state(self, batch_size: int) -> list[Tensor]:
        """The state before any token."""
        state: list[Tensor] = self.model.initial_state(batch_size)  # type: ignore[operator]
        return state

    @torch.jit.export
    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.text.encode(text)

    @torch.jit.export
    def generate(
        self,
        prompt: str,
        max_tokens: int = 50,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = -1,
        stop_at_eos: bool = False,
    ) -> str:
        """Continues a text: `prompt` and what was added. A temperature of 0 is greedy, a seed below 0 a fresh one."""
        ids = [self.text.eos_id] + self.text.encode(prompt)  # noqa: RUF005  (TorchScript)
        added = self.generate_ids(ids, max_tokens, temperature, top_k, top_p, seed, stop_at_eos)
        return prompt + self.text.decode(added, ids)

    @torch.jit.export
    def generate_ids(
        self,
        prompt: list[int],
        max_tokens: int = 50,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = -1,
        stop_at_eos: bool = False,
    ) -> list[int]:
        """Continues a prompt of ids, which begins with that of <eos>; the ids that were added, without a last <eos>."""
        if temperature < 0.0 or top_p <= 0.0 or top_p > 1.0 or max_tokens < 1:
            raise ValueError("temperature must be at least 0, top_p lie in (0, 1], max_tokens be at least 1")
        if seed >= 0:
            torch.manual_seed(seed)
        state: list[Tensor] = self.model.initial_state(1)  # type: ignore[operator]
        tokens = torch.tensor([prompt])
        added: list[int] = []
        with torch.no_grad():
            for _ in range(max_tokens):
                logits, state = self.model(tokens, state)
                last = logits[:, -1].float().cpu()
                last[:, self.text.unk_id] = float("-inf")
                if temperature == 0.0:
                    token = int(last.argmax())
                else:
                    kept = filter_logits(last, temperature, top_k, top_p, 0.0, 1.0)
                    token = int(torch.multinomial(torch.softmax(kept, dim=-1), 1))
                if stop_at_eos and token == self.text.eos_id:
                    break
                added.append(token)
                tokens = torch.tensor([[token]])
        return added


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
    mode = model.training
    model.eval()
    try:
        difference = write_jit(model, model, tokenizer, path, settings)
    finally:
        model.train(mode)
    return ExportReport(path, difference, path.stat().st_size / 2**20)


def write_jit(
    network: nn.Module,
    expected: Any,
    tokenizer: Tokenizer,
    path: Path,
    settings: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
) -> float:
    """Writes a network in eval mode as TorchScript; the file is kept only where it agrees.

    Args:
        network: with `forward`, `initial_state`, `vocab_size` and `context_length` of the contract.
        expected: what its outputs must equal.
        tokenizer: see `export_jit`.
        path: see `export_jit`.
        settings: see `export_jit`.
        tolerance: in nats.

    Returns:
        The largest difference in nats.

    Raises:
        LinguistError: see `export_jit`.
    """
    content = {"vocab_size": len(tokenizer.tokens), "eos_id": tokenizer.eos_id, "unk_id": tokenizer.unk_id}
    extra = {
        "tokenizer.json": tokenizer.to_json(),
        "vocabulary.json": json.dumps(tokenizer.tokens, ensure_ascii=False),
        "settings.json": json.dumps(finite({**content, **(settings or {})}), ensure_ascii=False, allow_nan=False),
    }
    with kept_if_equal(path, tolerance) as (temporary, differences), quiet_torchscript():
        scripted = torch.jit.script(ExportedModel(network, tokenizer).eval())
        torch.jit.save(scripted, str(temporary), _extra_files=extra)
        differences.append(compare(expected, torch.jit.load(str(temporary), map_location="cpu")))  # type: ignore[no-untyped-call]
    return differences[0]


@contextmanager
def kept_if_equal(path: Path, tolerance: float = TOLERANCE) -> Iterator[tuple[Path, list[float]]]:
    """A file that takes its place only if the differences noted in the block stay within the tolerance.

    Args:
        path: of the file.
        tolerance: in nats.

    Yields:
        A temporary name, and a list to note differences in.

    Raises:
        LinguistError: a difference is larger, or not a number, or the file cannot be written.
    """
    differences: list[float] = []
    try:
        with whole_file(path) as temporary:
            yield temporary, differences
            for difference in differences:
                if not difference <= tolerance:
                    raise LinguistError(
                        f"{path.name}: its log-probabilities differ from the eager model's by {difference:.2g} nats, "
                        f"more than {tolerance}; the export was thrown away"
                    )
    except OSError as error:
        raise LinguistError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


@contextmanager
def quiet_torchscript() -> Iterator[None]:
    """TorchScript is deprecated upstream; who asks for it knows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        yield
