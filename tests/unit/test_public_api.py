"""What `import torch_linguist` offers, and the ten lines of its documentation."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import conftest
import pytest

import torch_linguist


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documentation = torch_linguist.__doc__
    assert documentation is not None
    lines = [line[4:] for line in documentation.splitlines() if line.startswith("    ")]
    source = "\n".join(lines)
    assert len([line for line in lines if line.strip()]) <= 10
    (tmp_path / "my_texts").mkdir()
    for index in range(4):
        text = conftest.made_text(60, index).replace("the ", "The ")
        (tmp_path / "my_texts" / f"{index}.txt").write_text(text, encoding="utf-8")
    # Smaller numbers, nothing else: the words of the example stay.
    source = source.replace("256", "8").replace("max_epochs=3", "max_epochs=0.3, device='cpu', precision='fp32'")
    monkeypatch.chdir(tmp_path)
    printed: list[Any] = []
    exec(compile(source, "example", "exec"), {"print": printed.append})
    assert 1 < printed[0] < 1000
    assert printed[1].startswith("The")


def test_every_name_is_there_and_listed_once() -> None:
    for name in torch_linguist.__all__:
        assert getattr(torch_linguist, name) is not None
    assert set(torch_linguist.__all__) == set(torch_linguist._ROOM_OF)
    assert len(set(torch_linguist.__all__)) == len(torch_linguist.__all__)
    assert set(torch_linguist.__all__) <= set(dir(torch_linguist))
    with pytest.raises(AttributeError, match="LSMT"):
        _ = torch_linguist.LSMT


def test_the_names_for_type_checkers_are_those_at_run_time() -> None:
    tree = ast.parse(Path(torch_linguist.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(torch_linguist.__all__)


def test_the_import_alone_brings_no_torch() -> None:
    code = "import sys, torch_linguist; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    root = Path(torch_linguist.__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
