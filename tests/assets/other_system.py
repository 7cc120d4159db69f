"""Runs a script of commands as on a system that lacks what Windows lacks, and that keeps files in use where they are.

Usage: `python other_system.py FOLDER`, with an LSTM trained on FOLDER/text.txt, used, resumed and scored.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Imported first: what third parties import of their own accord is not under test.
import datasets  # noqa: F401
import filelock  # noqa: F401
import psutil
import torch.distributed  # noqa: F401

for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None  # type: ignore[assignment]
for module, names in (
    (signal, ("SIGHUP", "SIGUSR1", "SIGKILL")),
    (os, ("fork", "killpg", "getuid", "sched_getaffinity")),
):
    for name in names:
        delattr(module, name)


def is_in_use(path: Path) -> bool:
    """Return whether this process has a file, or a file below a folder, open or mapped."""
    # Not `memory_maps`, for which the kernel adds up the pages of each map.
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    mapped = {fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6}
    opened = {found.path for found in psutil.Process().open_files()}
    used = [Path(found) for found in mapped | opened if found.startswith("/")]
    return any(one == path or path in one.parents for one in used)


def refusing(function: Callable[..., Any], *places: int) -> Callable[..., Any]:
    """Return a function of `os` that fails if one of its paths is in use."""

    def guarded(*paths: Any, **options: Any) -> Any:
        for place in places:
            path = Path(os.fsdecode(paths[place])).absolute()
            if options.get("dir_fd") is None and is_in_use(path):
                raise PermissionError(13, "Access is denied", str(path))
        return function(*paths, **options)

    return guarded


def main(folder: Path) -> None:
    """Train, use, resume, count, score and sweep, with models loaded from the files that training replaces."""
    from torch_linguist.checkpoint import load_run
    from torch_linguist.cli import eval as scoring
    from torch_linguist.cli import grid, train
    from torch_linguist.runs import platform

    platform.OPEN_FILES_STAY = True
    os.replace, os.rename, os.unlink = refusing(os.replace, 0, 1), refusing(os.rename, 0, 1), refusing(os.unlink, 0)
    os.remove = os.unlink
    output = folder / "meine Läufe №1"
    text = ["experiment=debug", "data=text", f'data.path="{folder / "text.txt"}"', f'output_dir="{output}"']
    small = ["model.embedding_dim=16", "model.hidden_size=16", "model.output=full", "trainer.max_steps=20"]
    assert train.main([*text, *small, "name=Übung 1"]) == 0
    run = load_run(output / "Übung 1")
    assert train.main([f'resume="{output / "Übung 1"}"', "trainer.max_steps=30"]) == 0
    assert train.main([*text, "model=ngram", "model.order=3", "model.quantize_bits=8", "name=gezählt"]) == 0
    counted = load_run(output / "gezählt")
    assert scoring.main([str(run.folder), str(counted.folder)]) == 0
    assert grid.main([*text, "model=ngram", "model.order=2,3", "jobs=2", "name=Suche"]) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
