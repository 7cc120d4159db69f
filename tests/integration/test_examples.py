"""The notebooks in `examples/` run from top to bottom, and are stored without outputs."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.ipynb"))
SIZES = {"MAX_STEPS": 3, "MAX_DOCUMENTS": 12}
"""What a test puts in place of the sizes at the top of a notebook."""

WIDTH = 32
"""What a test puts in place of the sizes of models."""

pytestmark = pytest.mark.xdist_group("examples")


def test_there_are_four() -> None:
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    found = set()
    for cell in notebook.cells:
        for name, value in SIZES.items():
            cell.source, count = re.subn(rf"^{name} = \d+", f"{name} = {value}", cell.source, flags=re.M)
            found |= {name} if count else set()
        cell.source = re.sub(r"\b(\w+_dim|hidden_size|projection_size)=\d+", rf"\1={WIDTH}", cell.source)
    assert "MAX_STEPS" in found
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("perplexity" in output.get("text", "") for output in printed)
