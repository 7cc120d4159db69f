"""A small text and small runs on it, which several tests use."""

import importlib
import io
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from torch_linguist.cli import train


def write_tale(folder: Path, lines: int = 400) -> Path:
    """Write `tale.txt` into a folder and return the folder."""
    text = [f"line {number} tells that {number % 7} and {number % 5} meet again ." for number in range(lines)]
    (folder / "tale.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
    return folder


def call(command: str, *arguments: str, folder: Path, given: str = "") -> tuple[int, str, str]:
    """Run a command in this process, which has imported torch already.

    Returns:
        Exit code, standard output and standard error.
    """
    main = importlib.import_module(f"torch_linguist.cli.{command}").main
    output, errors = io.StringIO(), io.StringIO()
    with (
        chdir(folder),
        redirect_stdout(output),
        redirect_stderr(errors),
        patch.object(sys, "stdin", io.StringIO(given)),
    ):
        code = main(list(arguments))
    return code, output.getvalue(), errors.getvalue()


def make_counted_and_trained(folder: Path) -> None:
    """Make the runs `counted` (3-grams) and `trained` (a small LSTM) on the tale, in a folder."""
    text = ["data=text", f"data.path={write_tale(folder, 200) / 'tale.txt'}", f"output_dir={folder}"]
    assert train.main([*text, "model=ngram", "model.order=3", "name=counted"]) == 0
    small = ["model.hidden_size=16", "optim.lr=0.01", "optim.weight_decay=0", "stages=[fit]"]
    assert train.main([*text, "experiment=debug", "model=lstm", *small, "name=trained"]) == 0
