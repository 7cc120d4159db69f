"""Where the configuration files lie, which groups and choices they offer, and what a mistyped word was meant to be.

Plain files and standard library only: `--help` reads the catalog without importing torch.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_linguist.errors import ConfigError
from torch_linguist.pipeline.stages.order import ORDER

GROUPS = ("data", "tokenizer", "model", "optim", "schedule", "trainer", "stage", "callbacks", "experiment")
"""The configuration groups, in the order in which a person meets them."""


@dataclass(frozen=True)
class Choice:
    """One YAML file of a group.

    Attributes:
        name: what stands after `group=`.
        path: the file.
        summary: the file's first comment line, or an empty text.
    """

    name: str
    path: Path
    summary: str


def config_root() -> Path:
    """The folder of the configuration files.

    A checkout's own `configs/` comes first, so that a second checkout under an editable install never reads the files
    of the first; otherwise the copy that was installed with the package.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "configs").is_dir():
        return checkout / "configs"
    return package / "configs"


def find_groups(config_dirs: Sequence[Path] = ()) -> dict[str, dict[str, Choice]]:
    """Lists every group and its choices, the package's own and those of the user's folders.

    Args:
        config_dirs: further folders laid out like `configs/`.

    Returns:
        Group name to choice name to `Choice`; the known groups first, then others by name.

    Raises:
        ConfigError: a folder does not exist, or a file of it has the name of one that is already there (it would
            silently lose against it).
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
                raise ConfigError(f"{path}: there is a {group}={name} already, {choices[name].path}; rename the file")
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
    """The options that a mistyped word was most likely meant to be, best first; may be empty."""
    return difflib.get_close_matches(word, sorted(options), n=count, cutoff=0.6)


def unknown_choice(group: str, value: str, choices: Iterable[str]) -> ConfigError:
    """The error for a choice that a group does not have."""
    names = sorted(choices)
    close = nearest(value, names)
    hint = f"; nearest: {', '.join(close)}" if close else ""
    return ConfigError(f"{group}={value}: there is no such {group}{hint}. Choices: {', '.join(names)}")


__all__ = ["GROUPS", "Choice", "config_root", "find_groups", "nearest", "unknown_choice"]
