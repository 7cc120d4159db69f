"""The examples of the API reference run, and every public name is on one of its pages."""

import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import torch_linguist

REFERENCE = Path(torch_linguist.__file__).resolve().parents[1] / "docs" / "reference"

PACKAGES = (
    "analysis",
    "analysis.analysis_figures",
    "checkpoint",
    "data",
    "errors",
    "evaluation",
    "evaluation.adaptation.continuous_cache",
    "evaluation.adaptation.dynamic_evaluation",
    "evaluation.adaptation.following_weights",
    "evaluation.interpretation.attribution",
    "evaluation.interpretation.contexts",
    "evaluation.interpretation.sensitivity",
    "evaluation.slices",
    "evaluation.uncertainty",
    "explore",
    "explore.drawing",
    "export",
    "generation",
    "model",
    "model.ngram",
    "optim",
    "pipeline",
    "report",
    "report.colored_text",
    "report.plots",
    "serve",
    "serve.server",
    "sweep",
    "trainer",
)

WITHOUT = {
    "ExportFormat": "abstract; see `export_formats`",
    "CheckedFile": "abstract; see `export_formats`",
    "Fit": "built by `train`",
    "TrainingContext": "built by `train`",
    "Plan": "built by tl-train from a configuration",
    "Run": "built by `run`",
    "run": "needs a whole plan",
    "Outcome": "a row of a sweep",
    "SweepRun": "a row of a sweep",
    "SweepResult": "returned by `run_sweep`",
    "TrainingProgram": "a protocol",
    "run_sweep": "starts processes",
    "TensorBoardLogger": "follows a run",
    "TensorBoardObserver": "follows a run",
    "TerminalObserver": "follows a run",
    "closing_table": "prints a table",
    "Engine": "runs a thread",
    "served_models": "needs a finished run",
    "serve": "runs until it is stopped",
    "prune_entropy": "takes a model's inner tables",
}
"""Names that have no example of their own, and why."""


def public_names() -> Iterator[tuple[str, str, Any]]:
    """Yield package, name and object of every public class and function."""
    for package in PACKAGES:
        module = importlib.import_module(f"torch_linguist.{package}")
        own = [
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
        ]
        if package == "errors":
            own = [name for name in own if name.endswith("Error")]
        for name in getattr(module, "__all__", own):
            found = getattr(module, name)
            if str(getattr(found, "__module__", "")).startswith("torch_linguist"):
                yield package, name, found


NAMES = [(package, name, found) for package, name, found in public_names() if hasattr(found, "__name__")]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The setup that the reference describes, and all public names."""
    monkeypatch.chdir(tmp_path)
    setup = re.findall(r"```python\n(.*?)```", (REFERENCE / "index.md").read_text(encoding="utf-8"), re.S)[-1]
    found = {name: value for _, name, value in public_names()}
    exec(compile(setup, "docs/reference/index.md", "exec"), found)
    return found


@pytest.mark.parametrize(("package", "name"), [(package, name) for package, name, _ in NAMES])
def test_the_example_runs(package: str, name: str, names: dict[str, Any]) -> None:
    documentation = getattr(importlib.import_module(f"torch_linguist.{package}"), name).__doc__ or ""
    examples = doctest.DocTestParser().get_doctest(documentation, names, name, None, None)
    if not examples.examples:
        assert name in WITHOUT or name in {"ConfigError", "DataError", "TrainingError", "WriteError"}
        return
    assert name not in WITHOUT
    printed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(examples, out=printed.append).failed == 0, "".join(printed)


def test_the_reference_lists_these_packages() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
    assert sorted(re.findall(r"automodule:: torch_linguist\.(\S+)", pages)) == sorted(PACKAGES)
    listed = {name for _, name, _ in NAMES}
    for name in torch_linguist.__all__:
        assert name in listed
