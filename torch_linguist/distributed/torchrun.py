"""`torchrun … tl-train`: what a command does differently where several processes carry it out together.

The first process decides and prints, and the run folder is its own. The others keep the files that the same code
writes for them in a temporary folder, which goes when they end.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from torch_linguist.errors import LinguistError
from torch_linguist.runs.files import temporary_folder

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

LEFT_OUT = shutil.ignore_patterns("tensorboard", "*.jit", "*.png", ".lock", ".owner.json")
"""Files of a run that a process that goes on with it has no use for."""


def launched_rank() -> int:
    """Which process of those that torchrun started this one is; 0 without it."""
    return int(os.environ.get("RANK", "0")) if is_launched() else 0


def is_launched() -> bool:
    """Whether torchrun has started several processes; torch is not needed to tell."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def launched_process_group() -> Iterator[None]:
    """Within the block this process works together with the others that torchrun started, if it did."""
    if not is_launched():
        yield
        return
    from torch_linguist.distributed import processes

    with processes.process_group():
        yield


def from_main_process(make: Callable[[], T]) -> T:
    """What the first process finds, for all of them.

    Args:
        make: is called in the first process alone; gives what JSON can hold.
    """
    if not is_launched():
        return make()
    from torch_linguist.distributed import processes

    found: T = processes.broadcast_object(make)
    return found


@contextmanager
def process_folder(folder: Path, goes_on: bool) -> Iterator[Path]:
    """Where this process writes: the run folder in the first one, else a temporary folder.

    Args:
        folder: of the run.
        goes_on: whether an earlier run is taken up; its state is then copied.

    Raises:
        LinguistError: the folder of a run that goes on is not there on this machine.
    """
    if launched_rank() == 0:
        _wait()  # For the others to have their copies.
        yield folder
        return
    with temporary_folder("torch-linguist-") as temporary:
        own = temporary / folder.name
        if goes_on:
            if not folder.is_dir():
                raise LinguistError(f"{folder}: is not there for process {launched_rank()}; put it where all see it")
            shutil.copytree(folder, own, ignore=LEFT_OUT)
        else:
            own.mkdir()
        _wait()
        yield own


def process_console() -> "Console | None":
    """Where this process tells how it goes: the terminal in the first one, else nowhere."""
    if launched_rank() == 0:
        return None
    from rich.console import Console

    return Console(quiet=True)


def _wait() -> None:
    if is_launched():
        from torch_linguist.distributed import processes

        processes.barrier()


__all__ = [
    "from_main_process",
    "is_launched",
    "launched_process_group",
    "launched_rank",
    "process_console",
    "process_folder",
]
