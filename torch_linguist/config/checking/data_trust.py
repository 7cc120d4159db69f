"""Which corpora a run folder may open: a folder may be a stranger's, and its configuration names files and addresses.

A run's own corpus is opened without a question if it is built in (one of the package's `data=` choices, from its usual
source), or if this user has trained on it before. Everything else needs the user's word.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from torch_linguist.config.catalog import find_groups
from torch_linguist.config.checking.node_checks import check_node
from torch_linguist.config.plain import to_plain
from torch_linguist.errors import LinguistError

KNOWN_FOLDER = "known_data"
"""Folder in the cache with one empty file per corpus that this user has trained on."""


def remember_data(config: DictConfig) -> None:
    """Record that this user named a corpus, so that the run's own commands may open it later.

    Args:
        config: configuration whose `data` node was written on the command line.
    """
    marker = _marker(_data_node(config))
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise LinguistError(
            f"{marker}: cannot be written ({error.strerror}); free some space, or set TORCH_LINGUIST_CACHE to another "
            "folder"
        ) from error


def check_data_trusted(config: DictConfig, folder: Path) -> None:
    """Refuse to open a corpus that only a run folder names.

    Raises:
        LinguistError: the corpus is neither built in nor known to this user.
    """
    node = _data_node(config)
    if _is_built_in(node) or _marker(node).is_file():
        return
    source = ", ".join(f"data.{key}={value}" for key, value in node.items() if key in ("path", "hub_id") and value)
    raise LinguistError(
        f"{folder}: its configuration reads {source or 'a corpus of its own'}, which you have not trained on here; "
        "add --trust-data if you trust this run, or name a corpus with --data"
    )


def _data_node(config: DictConfig) -> dict[str, Any]:
    node: dict[str, Any] = check_node("data", to_plain(config, "data"))
    path = node.get("path")
    if isinstance(path, str) and "://" not in path:
        node["path"] = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - a link is not followed
    return node


def _marker(node: Mapping[str, Any]) -> Path:
    from torch_linguist.data.cache import default_cache_dir

    content = json.dumps(node, sort_keys=True, ensure_ascii=True, default=str)
    return default_cache_dir() / KNOWN_FOLDER / hashlib.sha256(content.encode()).hexdigest()


def _is_built_in(node: Mapping[str, Any]) -> bool:
    """Return whether a node equals one of the package's choices in everything that names a source.

    Numbers and flags (seeds, fractions) select within a corpus; texts, lists and mappings may name files.
    """
    return any(_sources(node) == _sources(choice) for choice in _shipped_nodes())


def _shipped_nodes() -> list[dict[str, Any]]:
    plain: list[Any] = [OmegaConf.to_container(OmegaConf.load(one.path)) for one in find_groups()["data"].values()]
    return [node for node in plain if node.get("path") is None]


def _sources(node: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in node.items() if isinstance(value, str | list | dict)}
