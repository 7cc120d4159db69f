"""`torchrun … tl-train`: commands that several processes carry out together.

The main process decides, prints and writes the run folder. The others run the same code, with a temporary folder that
is deleted when they end. Nothing here imports torch unless several processes were started.
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

LEFT_OUT = shutil.ignore_patterns("tensorboard", "*.jit", "*.png", ".lock", ".owner.json", "shards-*")
"""Files of a run that are not needed to continue it, or are read from the folder of the main process."""


def launched_rank() -> int:
    """Return the rank of this process among those that torchrun started; 0 without torchrun."""
    return int(os.environ.get("RANK", "0")) if is_launched() else 0


def is_launched() -> bool:
    """Return whether torchrun started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def launched_process_group() -> Iterator[None]:
    """Join the processes that torchrun started, if it did, for the duration of the block."""
    if not is_launched():
        yield
        return
    from torch_linguist.distributed import processes

    with processes.process_group():
        yield


def from_main_process(make: Callable[[], T]) -> T:
    """Return the result of a function that the main process alone calls.

    Args:
        make: function without arguments; its result can be pickled.
    """
    if not is_launched():
        return make()
    from torch_linguist.distributed import processes

    found: T = processes.broadcast_object(make)
    return found


def earlier_folder() -> Path | None:
    """Return the run folder of the processes that torchrun has replaced by these; None if it has not restarted any."""
    if not is_launched():
        return None
    from torch_linguist.distributed import processes

    return processes.remembered_folder()


@contextmanager
def process_folder(folder: Path, resumed: bool) -> Iterator[Path]:
    """Yield the folder this process writes to: the run folder in the main process, else a temporary folder.

    Args:
        folder: run folder.
        resumed: whether an earlier run is continued; its state is then copied.

    Raises:
        LinguistError: the folder of a resumed run is missing on this machine.
    """
    if launched_rank() == 0:
        _wait()  # Until the others have their copies.
        _remember(folder)
        yield folder
        return
    with temporary_folder("torch-linguist-") as temporary:
        own = temporary / folder.name
        if resumed:
            if not folder.is_dir():
                raise LinguistError(
                    f"{folder}: is missing for process {launched_rank()}; put the run on a shared file system"
                )
            shutil.copytree(folder, own, ignore=LEFT_OUT)
        else:
            own.mkdir()
        _wait()
        yield own


def process_console() -> "Console | None":
    """Return the console of this process: None for the terminal in the main process, else a silent one."""
    if launched_rank() == 0:
        return None
    from rich.console import Console

    return Console(quiet=True)


def _wait() -> None:
    if is_launched():
        from torch_linguist.distributed import processes

        processes.barrier()


def _remember(folder: Path) -> None:
    if is_launched():
        from torch_linguist.distributed import processes

        processes.remember_folder(folder)
