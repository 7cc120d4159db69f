"""`--config-dir RUN`: repeats a run from its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from torch_linguist.config.composition import Composition
from torch_linguist.config.overrides import parse_overrides
from torch_linguist.config.resume import resumed_composition
from torch_linguist.errors import ConfigError

NEUTRAL = ("name", "output_dir", "resume")
"""Keys that do not change what a run computes."""

PINNED = {"trainer.precision": "precision", "trainer.device": "device"}
"""Keys that may be `auto` and then depend on the machine, with the entry of `summary.json` that holds the choice."""


@dataclass(frozen=True)
class Repetition:
    """A run to repeat.

    Attributes:
        composition: configuration of the run, with the values of the command line.
        folder: folder of the run.
        exact: whether the command line leaves unchanged what the run computes.
    """

    composition: Composition
    folder: Path
    exact: bool


def split_config_dirs(config_dirs: Sequence[Path]) -> tuple[list[Path], Path | None]:
    """Split the values of `--config-dir` into folders of groups and a run folder, if there is one.

    Raises:
        ConfigError: there are several run folders.
    """
    runs = [path for path in config_dirs if (path / "config.yaml").is_file() and (path / "tokenizer.json").is_file()]
    if len(runs) > 1:
        raise ConfigError(f"--config-dir: {runs[0]} and {runs[1]} are both run folders; repeat one run at a time")
    return [path for path in config_dirs if path not in runs], runs[0] if runs else None


def repetition(folder: Path, composition: Composition) -> Repetition:
    """Return the configuration that repeats a run: its own, with its device and its precision.

    Raises:
        ConfigError: the command line makes another choice for a group, or the run's configuration cannot be read.
    """
    repeated = resumed_composition(folder, composition, fixed=(), ignored=())
    given = {override.key_or_group for override in parse_overrides(composition.overrides)}
    # The command line says where to write, not the folder, which may be a stranger's.
    OmegaConf.update(repeated.config, "output_dir", composition.config.output_dir)
    OmegaConf.update(repeated.config, "resume", composition.config.resume)
    summary = _summary(folder)
    for key, name in PINNED.items():
        value = summary.get(name)
        if OmegaConf.select(repeated.config, key) == "auto" and key not in given and isinstance(value, str):
            OmegaConf.update(repeated.config, key, value)
    return Repetition(repeated, folder, exact=given <= set(NEUTRAL))


def _summary(folder: Path) -> dict[str, Any]:
    from torch_linguist.runs.safe_reading import read_json

    path = folder / "summary.json"
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
