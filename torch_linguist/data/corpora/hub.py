"""Rows of a data set on the Hugging Face hub, or of a local folder of the same shape, through `datasets`."""

import functools
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch_linguist.data.corpora.corpus import digest
from torch_linguist.errors import DataError

REACH_SECONDS = 5.0
"""Timeout of the first request to the hub, in seconds; `datasets` itself would try for half a minute."""

_BATCH = 1000


def hub_rows(
    hub_id: str,
    hub_config: str | None,
    revision: str | None,
    split: str,
    *,
    files: Mapping[str, str] | None = None,
    streaming: bool = False,
    begin: int = 0,
    end: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield rows of one split from the files that `datasets` keeps on disk, or streamed from the hub.

    Args:
        hub_id: data set on the hub (`owner/name`), or a local folder in the hub's layout.
        hub_config: configuration of the data set; None for the default.
        revision: commit, branch or tag; None for the newest commit.
        split: name of the split on the hub.
        files: file pattern of each split; None if the data set defines its splits.
        streaming: whether to stream the rows without a download.
        begin: first row.
        end: one past the last row; None for all rows.

    Raises:
        DataError: the hub cannot be reached and nothing is kept locally, or there is no such data set.
    """
    content = _folder_fingerprint(hub_id) if Path(hub_id).is_dir() else None
    patterns = None if files is None else tuple(sorted(files.items()))
    rows = _load(hub_id, hub_config, revision, split, content, patterns, streaming)
    if streaming:
        rows = rows.skip(begin) if end is None else rows.skip(begin).take(end - begin)
    elif begin or end is not None:
        rows = rows.select(range(min(begin, len(rows)), min(len(rows), len(rows) if end is None else end)))
    try:
        for batch in rows.iter(batch_size=_BATCH):
            names = list(batch)
            for values in zip(*(batch[name] for name in names), strict=True):
                yield dict(zip(names, values, strict=True))
    except ConnectionError as error:
        raise _unreachable(hub_id, _one_line(error)) from error
    except (ValueError, OSError, EOFError, zlib.error) as error:  # Files of a stream are opened only now.
        raise DataError(f"data.hub_id={hub_id}: a file is damaged ({_one_line(error)}); download it again") from error


@functools.lru_cache(maxsize=8)
def _load(
    hub_id: str,
    hub_config: str | None,
    revision: str | None,
    split: str,
    content: str | None,
    files: tuple[tuple[str, str], ...] | None,
    streaming: bool,
) -> Any:
    """Return the rows, memory-mapped or streamed; `content` is the fingerprint of a local folder, None for the hub."""
    import datasets  # Slow to import.

    settings: dict[str, Any] = {"revision": revision, "streaming": streaming}
    access: AbstractContextManager[None] = nullcontext()
    if content is not None:
        # `datasets` caches local folders by name, so a changed folder or a namesake would return the old rows.
        settings["cache_dir"] = str(Path(datasets.config.HF_DATASETS_CACHE) / f"local-{content[:16]}")
        del settings["revision"]
        if not (Path(hub_id) / "README.md").is_file():
            hub_config = None  # Configurations are defined in the README of a data set.
    elif not datasets.config.HF_HUB_OFFLINE and not _can_reach(_endpoint()):
        if not _is_kept(hub_id):
            raise _unreachable(hub_id, f"no answer from {_endpoint()}")
        access = _offline()
    if files is not None:
        hub_config = None
        settings["data_files"] = dict(files)
    try:
        with access:
            return datasets.load_dataset(hub_id, hub_config, split=split, **settings)
    except ConnectionError as error:
        raise _unreachable(hub_id, _one_line(error)) from error
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        place = f"data.hub_id={hub_id} data.hub_config={hub_config} data.revision={revision}"
        raise DataError(
            f"{place}: cannot be loaded ({_one_line(error)}); check these three keys, or set data.path=FOLDER"
        ) from error


def hub_fingerprint(hub_id: str, hub_config: str | None, revision: str | None) -> str:
    """Return a fingerprint: of name and revision, or of the files of a local folder. Needs no network."""
    content = _folder_fingerprint(hub_id) if Path(hub_id).is_dir() else None
    return digest("hub", hub_id, hub_config, revision, content)


def _folder_fingerprint(folder: str) -> str:
    files = sorted(file for file in Path(folder).resolve().rglob("*") if file.is_file())
    return digest([[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files])


def _unreachable(hub_id: str, reason: str) -> DataError:
    return DataError(
        f"data.hub_id={hub_id}: the Hugging Face hub cannot be reached ({reason}); "
        "connect to the network, or read a local copy with data.path=FOLDER"
    )


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


@contextmanager
def _offline() -> Iterator[None]:
    """Stop the library from retrying a hub that did not answer."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _is_kept(hub_id: str) -> bool:
    """Return whether the cache of `datasets` has an earlier download, which needs no connection to the hub."""
    import datasets

    return (Path(datasets.config.HF_DATASETS_CACHE) / hub_id.replace("/", "___")).is_dir()


def _can_reach(endpoint: str) -> bool:
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=REACH_SECONDS):
            return True
    except urllib.error.HTTPError:  # The hub answered with an error, so it can be reached.
        return True
    except (OSError, ValueError):
        return False


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
