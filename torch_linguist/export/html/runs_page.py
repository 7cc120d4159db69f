"""A page of finished runs: `tl-export RUN … --html`."""

from collections.abc import Sequence
from pathlib import Path

from torch_linguist.checkpoint import LoadedRun
from torch_linguist.export.html.page import PageModel, write_html
from torch_linguist.model import Mixture
from torch_linguist.runs.folders import run_labels


def write_runs_page(
    runs: Sequence[LoadedRun], path: Path, prompt: str = "", weights: Sequence[float] | None = None
) -> int:
    """Write a page in which the models of runs work side by side.

    Args:
        runs: at least one.
        path: of the file.
        prompt: text that the page begins with.
        weights: shares of the runs in a mixture that is one more model of the page; None for no mixture.

    Returns:
        The bytes of the file.

    Raises:
        LinguistError: a model that a page has no code for, or runs that cannot be mixed.
    """
    labels = run_labels([run.folder for run in runs])
    models = [
        PageModel(label, run.model, run.tokenizer, run.summary, run.folder / "curves.png")
        for label, run in zip(labels, runs, strict=True)
    ]
    if weights is not None:
        mixture = Mixture([run.model for run in runs], weights).eval()
        models.append(PageModel("mixture", mixture, runs[0].tokenizer, {"model": "mixture of the models above"}))
    return write_html(models, path, prompt)
