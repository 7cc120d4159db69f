"""Catalog of the configuration files: their groups and choices, and the nearest names to a mistyped one.

Uses plain files and the standard library only, so that `--help` does not import torch.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_linguist.errors import ConfigError
from torch_linguist.pipeline.stages.order import ORDER

GROUPS = ("data", "tokenizer", "model", "optim", "schedule", "trainer", "stage", "callbacks", "logger", "experiment")
"""Configuration groups, in the order of the help page."""

SIDE_BY_SIDE: Mapping[str, tuple[str, ...]] = {"callbacks": ("none",), "logger": ("tensorboard",)}
"""Groups of which several choices stand side by side, each at a key of its own, with the default choices."""

EMPTY = ("none", "csv")
"""Choices of these groups that add nothing."""


@dataclass(frozen=True)
class Choice:
    """One YAML file of a group.

    Attributes:
        name: name of the choice, as in `group=name`.
        path: path of the file.
        summary: first comment line of the file; empty if there is none.
    """

    name: str
    path: Path
    summary: str


def config_root() -> Path:
    """Return the folder of the configuration files.

    The `configs/` of a checkout takes precedence over the installed copy: a second checkout beside an editable install
    must not read the files of the first.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "configs").is_dir():
        return checkout / "configs"
    return package / "configs"


def find_groups(config_dirs: Sequence[Path] = ()) -> dict[str, dict[str, Choice]]:
    """Return the choices of every group: those of the package and those of the user's folders.

    Args:
        config_dirs: further folders laid out like `configs/`.

    Returns:
        `Choice` by group, then by name. The groups of the package come first.

    Raises:
        ConfigError: a folder does not exist, or one of its files has the name of an existing choice, which Hydra would
            silently prefer.
    """
    found: dict[str, dict[str, Choice]] = {group: {} for group in GROUPS}
    for directory in (config_root(), *config_dirs):
        if not directory.is_dir():
            raise ConfigError(f"--config-dir {directory}: there is no such folder")
        for path in sorted(directory.rglob("*.yaml")):
            group, _, name = path.relative_to(directory).with_suffix("").as_posix().partition("/")
            if not name:
                continue
            choices = found.setdefault(group, {})
            if name in choices:
                raise ConfigError(f"{path}: {group}={name} exists already, {choices[name].path}; rename the file")
            choices[name] = Choice(name, path, _first_comment(path))
    ordered = {group: dict(sorted(choices.items())) for group, choices in found.items()}
    stages = ordered["stage"]
    return ordered | {"stage": {name: stages[name] for name in sorted(stages, key=_position)}}


def _position(stage: str) -> int:
    """Return the position of a stage in a run; a user's own stages come last."""
    return ORDER.index(stage) if stage in ORDER else len(ORDER)


def _first_comment(path: Path) -> str:
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    for line in content.splitlines():
        text = line.strip()
        if text.startswith("#") and not text.startswith("# @package"):
            return text.lstrip("# ")
        if text and not text.startswith("#"):
            break
    return ""


def nearest(word: str, options: Iterable[str], count: int = 3) -> list[str]:
    """Return the options nearest to a mistyped word, best first; empty if none is near."""
    return difflib.get_close_matches(word, sorted(options), n=count, cutoff=0.6)


def unknown_choice(group: str, value: str, choices: Iterable[str]) -> ConfigError:
    """Return the error for a choice that a group does not have."""
    names = sorted(choices)
    close = nearest(value, names)
    hint = f"; nearest: {', '.join(close)}" if close else ""
    return ConfigError(f"{group}={value}: there is no such {group}{hint}. Choices: {', '.join(names)}")
