"""`resume=` continues a run, `--config-dir RUN` repeats one: which run that is, and its configuration."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from torch_linguist.config.checking.signatures import show
from torch_linguist.config.checking.targets import targets_of
from torch_linguist.config.composition import Composition
from torch_linguist.config.overrides import parse_overrides
from torch_linguist.config.plain import exists, to_plain
from torch_linguist.config.stored_config import read_run_config
from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.runs.folders import list_runs

FIXED = (
    "data",
    "tokenizer",
    "model",
    "seed",
    "init_from",
    "init_vocabulary",
    "trainer.batch_size",
    "trainer.sequence_length",
    "trainer.batches",
    "optim.decay_embeddings",
    "optim.decay_all",
    "optim.layer_decay",
)
"""Nodes and keys that a resumed run cannot change: its weights, its position in the data, and the parameter groups of
its optimizer depend on them."""

IGNORED = ("resume", "output_dir", "name")
"""Keys that choose the run, not how it continues."""


NEUTRAL = ("name", "output_dir", "resume")
"""Keys that do not change what a run computes."""

PINNED = {"trainer.precision": "precision", "trainer.device": "device"}
"""Keys that may be `auto` and then depend on the machine, with the entry of `summary.json` that holds the choice."""


def find_resumed(resume: Any, output_dir: Path, name: str | None) -> Path | None:
    """Return the run folder that `resume=` refers to.

    Args:
        resume: None or False (a new run), True (the newest run that can continue), `auto` (the same, or a new run if
            there is none) or a run folder.
        output_dir: folder for run folders.
        name: name of the run; with True and `auto`, only runs of this name count.

    Returns:
        The run folder, or None for a new run.

    Raises:
        LinguistError: there is no such run, or it cannot continue.
    """
    if resume is None or resume is False:
        return None
    if resume is True or resume == "auto":
        runs = [folder for folder in list_runs(output_dir) if is_resumable(folder)]
        if name is not None:
            # If the name was taken, the run was called NAME-2. Some file systems ignore case: `LSTM` may open `lstm`.
            own = output_dir / name
            named = [own] if is_resumable(own) else []
            runs = named or [folder for folder in runs if re.fullmatch(rf"{re.escape(name)}-\d+", folder.name)]
        if not runs and resume is True:
            where = output_dir / name if name else output_dir
            raise LinguistError(f"resume=true: {where} holds no run that can continue; resume=auto starts one")
        return runs[0] if runs else None
    folder = Path(str(resume))
    if not is_resumable(folder):
        raise LinguistError(f"resume={resume}: is not a run folder with config.yaml and progress.json")
    return folder


PROGRESS = "progress.json"


def is_just_started(folder: Path) -> bool:
    """Return whether a folder is that of a run whose first stage has not begun: it holds nothing but its start."""
    if not folder.is_dir():
        return False
    return all(path.name in (".lock", ".owner.json", "config.yaml", "tokenizer.json") for path in folder.iterdir())


def is_resumable(folder: Path) -> bool:
    """Return whether a run can continue: its folder says what to do and what is done."""
    known = (folder / PROGRESS).is_file() or (folder / "checkpoints" / "last.pt").is_file()
    return known and (folder / "config.yaml").is_file()


def resumed_composition(
    folder: Path, composition: Composition, fixed: Sequence[str] = FIXED, ignored: Sequence[str] = IGNORED
) -> Composition:
    """Return the configuration of a run with the values of the command line.

    An override that repeats a value of the run changes nothing: the run's own command line with `resume=auto` added
    continues it.

    Args:
        folder: folder of the run.
        composition: configuration of the command line.
        fixed: nodes and keys that cannot change.
        ignored: keys of the command line that do not count.

    Raises:
        ConfigError: an override changes what cannot change, or the run's configuration names foreign classes.
    """
    config, choices = read_run_config(folder, trusted=_packages(composition.config))
    kept: dict[str, str] = {}
    for override in parse_overrides(composition.overrides):
        key, line = override.key_or_group, str(override.input_line)
        if key in ignored:
            continue
        if key in composition.choices or key in choices:
            if composition.choices.get(key) != choices.get(key):
                raise ConfigError(
                    f"{line}: the run in {folder} keeps {key}={choices.get(key, 'null')}; leave it out, set single "
                    "keys, or start a new run"
                )
            continue
        value = override.value()
        if exists(config, key) and to_plain(config, key) == to_plain(composition.config, key):
            continue
        if key in fixed or key.partition(".")[0] in fixed:
            kept[f"{key}={show(value)}"] = (
                f"has {key}={show(to_plain(config, key))}" if exists(config, key) else f"has no {key}"
            )
            continue
        if override.is_delete():
            raise ConfigError(f"{line}: a resumed run keeps its keys; set another value")
        OmegaConf.update(config, key, to_plain(composition.config, key), force_add=True)
    if kept:
        it = "it" if len(kept) == 1 else "them"
        raise ConfigError(
            f"{', '.join(kept)}: the run in {folder} {', '.join(kept.values())}, and keeps {it}; leave {it} out"
        )
    return Composition(config, choices, composition.overrides)


def changed_values(folder: Path, composition: Composition) -> list[str]:
    """Return how a resumed run differs from its configuration so far, as in `trainer.max_steps: 100 → 200`."""
    begun_with, _ = read_run_config(folder, trusted=_packages(composition.config))
    before, after = (_flat(to_plain(config)) for config in (begun_with, composition.config))
    keys = [*after, *(key for key in before if key not in after)]
    return [
        f"{key}: {show(before.get(key))} → {show(after.get(key))}"
        for key in keys
        if before.get(key) != after.get(key) and key not in IGNORED
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: item
        for name, inner in value.items()
        for key, item in _flat(inner, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def _packages(config: DictConfig) -> tuple[str, ...]:
    """Return the top-level packages of the classes on the command line: who names a class trusts its package."""
    return tuple({f"{str(target).partition('.')[0]}." for _, target in targets_of(to_plain(config))})


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
