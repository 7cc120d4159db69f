"""Export of the best model of a run, or of a mixture of runs, with its model card."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torch_linguist.checkpoint.loaded_run import LoadedRun
from torch_linguist.data import TokenStream
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation import stream_nll
from torch_linguist.evaluation.mixture_scoring import fitted_weights
from torch_linguist.evaluation.run_evaluation import check_same_tokenizer
from torch_linguist.export.export_format import ExportFormat
from torch_linguist.export.exporting import SUMMARY_KEYS, ExportedFile, export_file
from torch_linguist.export.model_card import model_card
from torch_linguist.generation import generate
from torch_linguist.model import LanguageModel, Mixture
from torch_linguist.runs.files import write_text

OpenSplit = Callable[[str], TokenStream]


def export_runs(
    runs: Sequence[LoadedRun],
    formats: Sequence[ExportFormat],
    *,
    open_split: OpenSplit,
    path: Path | None = None,
    paths: Mapping[str, Path] | None = None,
    weights: Sequence[float] | None = None,
    check_tokens: int = 5000,
    command: str = "export_runs",
    note: Callable[[str], None] = lambda line: None,
) -> list[ExportedFile]:
    """Write the best model of a run, or a mixture of several, in some formats, with a model card beside the files.

    Args:
        runs: the run, or the runs to mix.
        formats: formats to write.
        open_split: returns a split of the first run's corpus; called for valid to fit a mixture, and for test to
            compare perplexities.
        path: path of the file; None for the default name in the folder of the first run.
        paths: paths of single formats, by their names.
        weights: weights of a mixture; None fits them on valid by EM.
        check_tokens: number of tokens of test to compare perplexities on; 0 skips the comparison.
        command: command line that the model card shows.
        note: called with messages for the user.

    Returns:
        The files.

    Raises:
        LinguistError: a model cannot be written in a format, or a file differs from its model.
    """
    first = runs[0]
    status = first.summary.get("status")
    if status != "finished" and first.folder.is_dir():
        note(f"note: the run has not finished (status {status or 'unknown'}); its best model so far is exported")
    stream = _test_split(open_split, note) if check_tokens else None
    model, summary = (first.model, dict(first.summary)) if len(runs) == 1 else _mixture(runs, weights, open_split, note)
    settings = {key: summary[key] for key in SUMMARY_KEYS if key in summary}
    folder = path.parent if path is not None else first.files_folder
    files = []
    for one in formats:
        default = folder / (f"mixture{Path(one.file_name).suffix}" if len(runs) > 1 else one.file_name)
        target = (paths or {}).get(one.name) or path or default
        file = export_file(one, model, first.tokenizer, target, settings, stream=stream, max_tokens=check_tokens)
        note(f"{target}: {file.report.mebibytes:.1f} MiB; {file.facts}")
        files.append(file)
    sample = generate(model, first.tokenizer, "", max_tokens=40, top_p=0.9, seed=1)[0]
    names = [run.folder.resolve().name for run in runs]
    title = names[0] if len(runs) == 1 else "Mixture of " + ", ".join(names)
    card = model_card(title, summary, command, files, sample)
    taken = [file.format.take_card(file.report.path, card) for file in files]
    if not all(taken):
        write_text(folder / "MODEL_CARD.md", card)
        note(f"{folder / 'MODEL_CARD.md'}: data, scores, command, limits")
    return files


def _mixture(
    runs: Sequence[LoadedRun],
    weights: Sequence[float] | None,
    open_split: OpenSplit,
    note: Callable[[str], None],
) -> tuple[LanguageModel, dict[str, Any]]:
    """Return the mixture as one model, and its summary."""
    check_same_tokenizer(runs)
    fitted = weights is None
    if weights is None:
        valid = open_split("valid")
        weights = fitted_weights([np.concatenate(list(stream_nll(run.model, valid))) for run in runs])
    shares = ", ".join(f"{weight:.3f} {run.folder.name}" for weight, run in zip(weights, runs, strict=True))
    note(f"mixture{', fitted on valid' if fitted else ''}: {shares}")
    summary: dict[str, Any] = {"model": f"mixture ({shares})"}
    summary |= {key: value for key, value in runs[0].summary.items() if key in ("data", "tokenizer", "vocab_size")}
    return Mixture([run.model for run in runs], list(weights)).eval(), summary


def _test_split(open_split: OpenSplit, note: Callable[[str], None]) -> TokenStream | None:
    """Return the test split, or None (with a note) if the corpus is not available."""
    try:
        return open_split("test")
    except LinguistError as error:
        note(f"note: the perplexity is not compared, since the corpus of the run cannot be read ({error})")
        return None
