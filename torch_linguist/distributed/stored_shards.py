"""Shards in files, by `torch.distributed.checkpoint`: each process writes and reads its own parts of the tensors.

torch describes such files in a pickle, `.metadata`, for its own tools. It is not read here, because a pickle runs code:
the caller keeps the same description in plain types.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torch_linguist.distributed import processes
from torch_linguist.distributed.sharding import is_sharded
from torch_linguist.errors import TrainingError
from torch_linguist.runs.platform import sync

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a folder that `write_shards` wrote, not read yet.

    Attributes:
        name: name of the tensor.
        shape: shape of the whole tensor.
        dtype: type of its numbers.
        folder: folder of the files.
        metadata: torch's description of all tensors in the folder.
    """

    name: str
    shape: torch.Size
    dtype: torch.dtype
    folder: Path
    metadata: "Metadata"

    def read(self, like: object = None) -> Tensor:
        """Read the tensor.

        Args:
            like: sharded tensor of the same shape, of which this process then reads its part; None, or anything else,
                for the whole tensor on the CPU.

        Raises:
            TrainingError: the files do not hold the tensor.
        """
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.state_dict_loader import load

        if isinstance(like, Tensor) and is_sharded(like) and like.shape == self.shape:
            target = torch.empty_like(like, dtype=self.dtype)
        else:
            target = torch.empty(self.shape, dtype=self.dtype)
        try:
            with warnings.catch_warnings():  # torch warns that it does not communicate, which is not needed to read.
                warnings.simplefilter("ignore")
                load({self.name: target}, storage_reader=_reader(self.folder, self.metadata), no_dist=True)
        except CheckpointException as error:
            raise TrainingError(f"{self.folder}: {self.name} cannot be read ({_reason(error)})") from error
        return target


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write sharded tensors; every process calls this and writes its parts.

    Args:
        folder: empty folder on a file system that all processes share.
        tensors: sharded tensors by name, the same names in all processes.

    Returns:
        The description that `stored_tensors` takes, in plain types.

    Raises:
        OSError: a process could not write its parts.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        with processes.reporting_lost_processes():
            metadata = save(dict(tensors), storage_writer=_writer(folder))
    except CheckpointException as error:
        raise OSError(_reason(error)) from error
    described: dict[str, Any] = {}
    sizes: dict[tuple[str, torch.Size], torch.Size] = {}
    for name, stored in metadata.state_dict_metadata.items():
        dtype = str(stored.properties.dtype).removeprefix("torch.")
        described[name] = {"shape": list(stored.size), "dtype": dtype, "chunks": []}
        sizes |= {(name, chunk.offsets): chunk.sizes for chunk in stored.chunks}
    for index, place in metadata.storage_data.items():
        part = [list(index.offset), list(sizes[index.fqn, index.offset])]
        described[index.fqn]["chunks"].append([*part, place.relative_path, place.offset, place.length])
    files = {place.relative_path for place in metadata.storage_data.values()}
    for name in files:
        if name.startswith(f"__{processes.rank()}_"):
            sync(folder / name)  # Before torch 2.15, torch syncs a file before its buffer is written.
    return {"tensors": described, "checksums": checksums(folder, sorted(files))}


def stored_tensors(folder: Path, description: Mapping[str, Any]) -> dict[str, StoredTensor]:
    """Return the tensors in a folder by their names; nothing is read.

    Args:
        folder: folder that `write_shards` wrote.
        description: its result.

    Raises:
        TrainingError: the description names other files than it has checksums of, or tensors larger than the files.
    """
    from torch.distributed.checkpoint import metadata as formats
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    metadata = formats.Metadata({}, storage_data={}, storage_meta=formats.StorageMeta())
    found: dict[str, StoredTensor] = {}
    files = description["checksums"]
    size = sum((folder / name).stat().st_size for name in files)
    for name, stored in description["tensors"].items():
        shape, dtype = torch.Size(stored["shape"]), getattr(torch, stored["dtype"])
        if shape.numel() * dtype.itemsize > size or any(chunk[2] not in files for chunk in stored["chunks"]):
            raise TrainingError(f"{folder}: does not hold all of {name}; use another checkpoint")
        chunks = []
        for offsets, sizes, file, start, length in stored["chunks"]:
            place = torch.Size(offsets)
            metadata.storage_data[formats.MetadataIndex(name, place)] = _StorageInfo(file, start, length)
            chunks.append(formats.ChunkStorageMetadata(place, torch.Size(sizes)))
        properties = formats.TensorProperties(dtype=dtype)
        metadata.state_dict_metadata[name] = formats.TensorStorageMetadata(properties, shape, chunks)
        found[name] = StoredTensor(name, shape, dtype, folder, metadata)
    return found


def checksums(folder: Path, names: Sequence[str]) -> dict[str, str | None]:
    """Return the SHA-256 of files, None for one that cannot be read; the processes divide the work.

    Args:
        folder: folder that all processes share; every process calls this.
        names: names of the files, in the same order in all processes.
    """
    own = {name: _checksum(folder / name) for name in names[processes.rank() :: processes.world_size()]}
    return {name: checksum for part in processes.all_gather_object(own) for name, checksum in part.items()}


def scattered(value: Any, like: object) -> Any:
    """Return the shards of a saved tensor like those of another one; anything else is unchanged.

    Args:
        value: stored tensor, or one that is whole in every process.
        like: tensor of the same shape; a stored tensor is read whole if it is not sharded.
    """
    if isinstance(value, StoredTensor):
        return value.read(like)
    if not isinstance(like, Tensor) or not is_sharded(like) or not isinstance(value, Tensor):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    if value.shape != like.shape:
        return value
    assert isinstance(like, DTensor)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def scattered_weights(weights: Mapping[str, Any], model: nn.Module) -> Mapping[str, Any]:
    """Return saved weights in the shards of a model."""
    own = model.state_dict()
    return {name: scattered(value, own.get(name)) for name, value in weights.items()}


def scattered_state(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return the saved state of an optimizer in the shards of its weights."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if not any(map(is_sharded, weights)):
        return dict(read_whole(state))
    parts = {
        place: {
            name: scattered(value, weights[place])
            for name, value in moments.items()
            # What belongs to rows alone has no use: sharded gradients are dense.
            if not isinstance(value, Tensor | StoredTensor) or value.shape in ((), weights[place].shape)
        }
        for place, moments in state["state"].items()
    }
    return state | {"state": parts}


def read_whole(content: Any) -> Any:
    """Return nested dicts and lists with every stored tensor read as a whole."""
    if isinstance(content, dict):
        return {key: read_whole(value) for key, value in content.items()}
    if isinstance(content, list):
        return [read_whole(value) for value in content]
    return content.read() if isinstance(content, StoredTensor) else content


def _writer(folder: Path) -> Any:
    from torch.distributed.checkpoint.filesystem import FileSystemWriter

    class DescribingWriter(FileSystemWriter):
        """Writer that says where each part lies; with torch 2.11 only the pickle does."""

        def finish(self, metadata: "Metadata", results: list[list[Any]]) -> None:
            super().finish(metadata, results)
            metadata.storage_data = {part.index: part.storage_data for parts in results for part in parts}

    return DescribingWriter(folder)


def _reader(folder: Path, metadata: "Metadata") -> Any:
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    class PlainReader(FileSystemReader):
        """Reader that is given the description instead of unpickling it."""

        def read_metadata(self, *args: Any, **kwargs: Any) -> "Metadata":
            return metadata

    return PlainReader(folder)


def _checksum(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _reason(error: Any) -> str:
    """Return the first failure of a `CheckpointException` in one line."""
    failure = next(iter(error.failures.values()))[0]
    lines = str(failure).strip().splitlines()
    return lines[0][:160] if lines else type(failure).__name__
