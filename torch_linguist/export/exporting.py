"""Exports a model and measures the result: equality on a text, size and speed."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_linguist.data import Tokenizer, TokenStream
from torch_linguist.errors import LinguistError
from torch_linguist.export.comparison import measure_speed, perplexities
from torch_linguist.export.export_format import ExportFormat, ExportReport
from torch_linguist.export.formats.jit import TorchScriptFile
from torch_linguist.model import LanguageModel

SUMMARY_KEYS = ("model", "data", "tokenizer", "parameters", "seed", "lr", "weight_decay", "versions", "valid", "test")
"""Entries of a run's summary that an exported file keeps."""

EQUAL_DIGITS = 1e-5
"""Largest relative difference of two perplexities that are equal to five digits."""


@dataclass(frozen=True)
class ExportedFile:
    """A written file and what was measured on it.

    Attributes:
        format: format of the file.
        report: report of the export.
        facts: sentences on accuracy and speed.

    Example:
        >>> jit = next(one for one in export_formats() if one.name == "jit")
        >>> "ms a token" in export_file(jit, model, corpus.tokenizer, Path("model.jit")).facts
        True
    """

    format: ExportFormat
    report: ExportReport
    facts: str


def export_jit(
    model: LanguageModel, tokenizer: Tokenizer, path: Path, settings: Mapping[str, Any] | None = None
) -> ExportReport:
    """Write a model as TorchScript; see `ExportFormat.write`.

    Example:
        >>> report = export_jit(model, corpus.tokenizer, Path("model.jit"))
        >>> report.difference < 1e-4
        True
    """
    return TorchScriptFile().write(model, tokenizer, path, settings)


def export_file(
    export_format: ExportFormat,
    model: LanguageModel,
    tokenizer: Tokenizer,
    path: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    stream: TokenStream | None = None,
    max_tokens: int = 5000,
) -> ExportedFile:
    """Write a file, compare its perplexity on a text, and time it.

    Args:
        export_format: format to write.
        model: model to write.
        tokenizer: tokenizer that the model was trained with.
        path: path of the file.
        settings: plain values to keep in the file.
        stream: split to compare the perplexity on; None skips the comparison.
        max_tokens: number of tokens to compare on.

    Raises:
        LinguistError: see `ExportFormat.write`, or the perplexity of an exact format differs.

    Example:
        >>> jit = next(one for one in export_formats() if one.name == "jit")
        >>> export_file(jit, model, corpus.tokenizer, Path("model.jit"), stream=corpus.test).report.path.name
        'model.jit'
    """
    report = export_format.write(model, tokenizer, path, settings)
    facts = [f"within {report.difference:.1g} nats of the eager model"] if export_format.is_exact else []
    if stream is not None:
        eager, other = perplexities(model, report.model, stream, max_tokens)
        counted = f"on the first {min(max_tokens, len(stream)):,} tokens of {stream.split}"
        if not export_format.is_exact:
            facts.append(f"perplexity {eager:.2f} before, {other:.2f} after ({counted})")
        elif abs(other / eager - 1) > EQUAL_DIGITS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise LinguistError(
                f"{path}: its perplexity is {other:.6g}, the model's {eager:.6g}, {counted}; the file was deleted, "
                "export in another format"
            )
        else:
            facts.append(f"perplexity {other:.5g}, as the eager model's, {counted}")
    speed = measure_speed(report.model, model.vocab_size)
    shown = f"{speed.milliseconds:.2f} ms a token, {speed.tokens_per_second:,.0f} tokens/s in batches"
    if not export_format.is_exact:
        before = measure_speed(model, model.vocab_size)
        size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()) / 2**20
        shown += f" (before: {size:.1f} MiB of weights, {before.milliseconds:.2f} ms, {before.tokens_per_second:,.0f})"
    return ExportedFile(export_format, report, "; ".join([*facts, shown]))
