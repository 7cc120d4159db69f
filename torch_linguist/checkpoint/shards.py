"""Checkpoints of sharded models: the shards lie in a folder, and a checkpoint file beside it commits them.

Each process writes its parts to `shards-STEP/`. The file, `last.pt`, holds everything else, the name of the folder and
the checksums of its files. It is written last and as a whole, so a training that is killed before still has the state
before, with its folder. A folder that no file names is deleted.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_linguist.distributed import processes
from torch_linguist.distributed.sharding import is_sharded, whole
from torch_linguist.distributed.stored_shards import checksums, read_whole, stored_tensors, write_shards
from torch_linguist.errors import TrainingError
from torch_linguist.runs.files import remove_abandoned_folders, temporary_suffix, writing
from torch_linguist.runs.platform import sync

FOLDER = re.compile(r"shards-\d+(-\d+)?")
"""Names of the folders."""

Place = tuple[str | int, ...]
"""Keys that lead to a value in nested dicts and lists."""


def without_shards(content: dict[str, Any], folder: Path, step: int) -> dict[str, Any]:
    """Write the sharded tensors of a checkpoint and return the rest, which names them; every process calls this.

    Args:
        content: content of the checkpoint; one without sharded tensors is returned unchanged.
        folder: folder of the checkpoint in this process; the shards go to that of the main process.
        step: updates done, for the name.

    Raises:
        OSError: a process could not write its parts.
        TrainingError: a process does not see the folder of the main process.
    """
    places: dict[str, list[Place]] = {}
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    for place, tensor in _sharded(content):
        name = names.setdefault(id(tensor), ".".join(map(str, place)))
        tensors[name] = tensor
        places.setdefault(name, []).append(place)
    if not tensors:
        return content

    def created() -> str:
        names = [f"shards-{step}", *(f"shards-{step}-{number}" for number in range(2, 100))]
        path = next(folder / name for name in names if not (folder / name).exists())
        with writing(path):
            path.mkdir(parents=True)
        return str(path.absolute())

    path = Path(processes.broadcast_object(created))
    _check_visible(path)
    description = write_shards(path, tensors)
    if processes.is_main_process():
        sync(path)
        sync(path.parent)
    kept: dict[str, Any] = _mapped(content, lambda tensor: None)
    return kept | {"shards": {"folder": path.name, "places": places, **description}}


def with_stored_tensors(content: dict[str, Any], path: Path, parts: bool) -> dict[str, Any]:
    """Return the content of a checkpoint file with the tensors that it names in their places.

    Args:
        content: content of the file; one that names no shards is returned unchanged. With shards, every process calls
            this.
        path: path of the file in this process.
        parts: whether the tensors are left unread, as `StoredTensor`.

    Raises:
        TrainingError: the shards are missing or damaged.
    """
    shards = content.pop("shards", None)
    if shards is None:
        return content
    names = [shards["folder"], *shards["checksums"]]
    if not FOLDER.fullmatch(names[0]) or any(Path(name).name != name for name in names):
        raise TrainingError(f"{path}: names shards outside its folder; start a new run")
    folder = Path(processes.broadcast_object(lambda: str(path.parent.absolute()))) / shards["folder"]
    _check_visible(folder)
    found = checksums(folder, sorted(shards["checksums"]))
    if wrong := [name for name, checksum in shards["checksums"].items() if found[name] != checksum]:
        raise TrainingError(f"{path}: not a readable checkpoint (damaged: {folder.name}/{wrong[0]} is not as written)")
    stored = stored_tensors(folder, shards)
    for name, places in shards["places"].items():
        value = stored[name] if parts else read_whole(stored[name])
        for place in places:
            parent: Any = content
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]] = value
    return content


def remove_unused_shards(folder: Path, files: Sequence[Path]) -> None:
    """Delete the shards that no checkpoint file names.

    Args:
        folder: folder of the checkpoints.
        files: checkpoint files that are kept; if one of them cannot be read, nothing is deleted.
    """
    found = [path for path in folder.glob("shards-*") if FOLDER.fullmatch(path.name)]
    if not found:
        return
    try:
        contents = [torch.load(path, weights_only=True, mmap=True) for path in files if path.is_file()]
        used = {content.get("shards", {}).get("folder") for content in contents}
    except Exception:  # noqa: BLE001 - torch.load raises many types of errors for damaged files
        return
    for path in found:
        if path.name not in used:
            shutil.rmtree(path, ignore_errors=True)


def gathered_on_disk(content: dict[str, Any], path: Path, write: Callable[[dict[str, Any]], None]) -> None:
    """Call a function, in the main process, with a content whose sharded tensors are whole; every process calls this.

    The tensors are gathered one after the other and wait on disk, so that no process holds all of them in memory.

    Args:
        content: content of a checkpoint.
        path: path of the checkpoint; temporary files lie beside it.
        write: function that writes it.
    """
    if not has_shards(content):
        if processes.is_main_process():
            write(content)
        return
    folder = path.with_name(f".{path.name}.{temporary_suffix()}")
    gathered: dict[int, Tensor | None] = {}

    def on_disk(tensor: Any) -> Tensor | None:
        if id(tensor) not in gathered:
            full = whole(tensor.to(tensor.device_mesh.device_type)).cpu()
            file = folder / str(len(gathered))
            gathered[id(tensor)] = _spilled(full, file) if processes.is_main_process() else None
        return gathered[id(tensor)]

    try:
        if processes.is_main_process():
            remove_abandoned_folders(path.parent, f".{path.name}.")
            folder.mkdir(parents=True)
        complete = _mapped(content, on_disk)
        if processes.is_main_process():
            write(complete)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def has_shards(content: Any) -> bool:
    """Return whether nested dicts and lists hold a sharded tensor."""
    return next(_sharded(content), None) is not None


def _spilled(tensor: Tensor, path: Path) -> Tensor:
    """Write a tensor to a file and return it mapped from there."""
    if not tensor.numel():
        return tensor
    tensor.contiguous().flatten().view(torch.uint8).numpy().tofile(path)
    return torch.from_file(str(path), shared=False, size=tensor.numel(), dtype=tensor.dtype).view(tensor.shape)


def _check_visible(folder: Path) -> None:
    """Check that all processes see a folder of the main process; every process calls this.

    Raises:
        TrainingError: one of them does not.
    """
    missing = [rank for rank, found in enumerate(processes.all_gather_object(folder.is_dir())) if not found]
    if missing:
        raise TrainingError(
            f"{folder}: is missing for process {missing[0]}; with trainer.shard=true all processes need the run folder "
            "on a file system that they share"
        )


def _sharded(content: Any, place: Place = ()) -> Iterator[tuple[Place, Tensor]]:
    """Yield the sharded tensors in nested dicts and lists, with their places."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _sharded(value, (*place, key))
    elif is_sharded(content):
        yield place, content


def _mapped(content: Any, change: Callable[[Any], Any]) -> Any:
    """Return nested dicts and lists with every sharded tensor replaced by the result of a function."""
    if isinstance(content, dict):
        return {key: _mapped(value, change) for key, value in content.items()}
    if isinstance(content, list):
        return [_mapped(value, change) for value in content]
    return change(content) if is_sharded(content) else content
