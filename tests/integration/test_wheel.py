"""What `pip install` gives: the wheel in an environment of its own, used from an empty folder."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import site
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("torch_linguist", "configs", "pyproject.toml", "README.md", "LICENSE")

IMPORT_NAMES = {"hydra-core": "hydra", "pyyaml": "yaml", "scikit-learn": "sklearn"}
"""Distributions whose import name is another."""

BROUGHT_ALONG = {"omegaconf": "hydra-core", "huggingface_hub": "datasets"}
"""Modules that another distribution brings in the version that it needs."""

pytestmark = pytest.mark.xdist_group("wheel")


def call(
    *command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    line = [str(part) for part in command]
    process = subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; the dependencies are lent by a path file, so nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).is_file():
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip"]
    call(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    call(sys.executable, "-m", "venv", "--without-pip", environment)
    call(
        *pip,
        "--python",
        environment / "bin" / "python",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        wheel,
        env=clean_environment(),
    )
    (packages,) = environment.glob("lib/python*/site-packages")
    lent = [path for path in site.getsitepackages() if Path(path).is_dir()]
    (packages / "lent.pth").write_text("\n".join(lent) + "\n")
    return environment


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HYDRA_FULL_ERROR")}


def test_every_module_and_file_is_in_the_wheel(installed: Path) -> None:
    (packages,) = installed.glob("lib/python*/site-packages")
    shipped = {path.relative_to(packages / "torch_linguist") for path in (packages / "torch_linguist").rglob("*.*")}
    modules = {path.relative_to(ROOT / "torch_linguist") for path in (ROOT / "torch_linguist").rglob("*.py")}
    files = {"configs" / path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    assert modules | files | {Path("py.typed")} <= shipped
    top_level = {path.name for path in packages.iterdir() if not path.name.endswith((".dist-info", ".pth"))}
    assert top_level == {"torch_linguist"}


def test_the_installed_command_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    environment = clean_environment()
    where = call(
        installed / "bin" / "python",
        "-c",
        "import torch_linguist.config.catalog as c; print(c.__file__, c.config_root())",
        cwd=tmp_path,
        env=environment,
    )
    assert all(str(installed) in path for path in where.stdout.split())
    small = ["data.max_documents=16", "tokenizer.max_size=300", "model.embedding_dim=32", "model.hidden_size=32"]
    call(installed / "bin" / "tl-train", "experiment=debug", "name=one", *small, cwd=tmp_path, env=environment)
    run = tmp_path / "outputs" / "one"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert set(summary["stages"]) == {"check", "overfit", "lr_find", "grid", "fit", "export"}
    assert {path for path in summary["artifacts"].values() if not (run / path).exists()} == set()
    call(installed / "bin" / "tl-export", "--jit", cwd=tmp_path, env=environment)
    listed = call(installed / "bin" / "tl-grid", "seed=1,2", "--cfg", cwd=tmp_path, env=environment)
    assert listed.stdout == "tl-train seed=1\ntl-train seed=2\n"


def modules_of(requirements: list[str]) -> set[str]:
    """What is imported as, of each distribution that a list of requirements names."""
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in requirements}
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}


def imports_of(nodes: Iterable[ast.AST]) -> set[str]:
    """The top-level packages that statements import; relative imports left out."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for module, distribution in BROUGHT_ALONG.items():
        brought = [line.lower().replace("-", "_") for line in importlib.metadata.requires(distribution) or ()]
        assert any(line.startswith(module) and "extra ==" not in line for line in brought)
    always = modules_of(project["dependencies"]) | set(BROUGHT_ALONG) | sys.stdlib_module_names | {"torch_linguist"}
    # What an extra brings may be imported inside a function, where its absence can be said clearly.
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines]
    # These are themselves imported inside a function.
    served = modules_of(project["optional-dependencies"]["serve"])
    late = {"gguf_content.py": "gguf", "evaluation_harness.py": "lm-eval", "modeling_torch_linguist.py": "hf"}
    undeclared = set()
    for path in (ROOT / "torch_linguist").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        undeclared |= {
            (path.name, name)
            for name in imports_of(tree.body) - always - (served if path.parent.name == "serve" else set())
            if name not in modules_of(project["optional-dependencies"].get(late.get(path.name, ""), []))
        }
        undeclared |= {(path.name, name) for name in imports_of(ast.walk(tree)) - always - modules_of(extras)}
    assert undeclared == set()
