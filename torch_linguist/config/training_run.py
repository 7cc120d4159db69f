"""`tl-train` as a function, and as the program that a sweep calls.

composition, repeated = compose_training(["model=gru", "trainer.max_minutes=5"])
summary = run_training(composition, repeated)
"""

import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from torch_linguist.config.build_plan import make_plan
from torch_linguist.config.checking.data_trust import check_data_trusted, remember_data
from torch_linguist.config.composition import Composition, compose_config
from torch_linguist.config.overrides import parse_overrides, quoted
from torch_linguist.config.resume import (
    PROGRESS,
    Repetition,
    changed_values,
    find_resumed,
    is_just_started,
    is_resumable,
    repetition,
    resumed_composition,
    split_config_dirs,
)
from torch_linguist.distributed.torchrun import (
    earlier_folder,
    from_main_process,
    launched_rank,
    process_console,
    process_folder,
)
from torch_linguist.errors import DataError
from torch_linguist.runs.folders import create_run_folder
from torch_linguist.runs.lock import is_locked

EXECUTABLE = (sys.executable, "-P", "-m", "torch_linguist.cli.sweep_child")


class TrainCommand:
    """`tl-train` as the program of a sweep.

    Args:
        config_dirs: folders whose groups are added in every run.
    """

    def __init__(self, config_dirs: Sequence[Path]) -> None:
        self.executable = EXECUTABLE
        self.options = tuple(part for folder in config_dirs for part in ("--config-dir", str(folder)))

    def arguments(self, overrides: Sequence[str], folder: Path) -> tuple[str, ...]:
        return (*self.options, *overrides, f"output_dir={quoted(str(folder.parent))}", f'name="{folder.name}"')

    def resume_arguments(self, folder: Path) -> tuple[str, ...]:
        return (f"resume={quoted(str(folder))}",) if is_resumable(folder) else ()

    def command(self, overrides: Sequence[str]) -> str:
        return shlex.join(["tl-train", *self.options, *overrides])


def compose_training(
    overrides: Sequence[str], config_dirs: Sequence[Path] = ()
) -> tuple[Composition, Repetition | None]:
    """Return the configuration of a training, and the run that it repeats if one of the folders is a run folder.

    Raises:
        ConfigError: an override or a folder is wrong.
    """
    directories, folder = split_config_dirs(config_dirs)
    composition = compose_config(overrides, directories)
    if folder is None:
        return composition, None
    repeated = repetition(folder, composition)
    return repeated.composition, repeated


def run_training(
    composition: Composition,
    repeated: Repetition | None = None,
    *,
    trust_data: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Carry out a training, new or resumed, in its run folder.

    Args:
        composition: configuration of the training.
        repeated: run that it repeats; None for none.
        trust_data: whether to open a corpus that only a run folder names.
        note: called with the folder of a run that is resumed.

    Returns:
        The content of `summary.json`.

    Raises:
        LinguistError: the configuration is wrong, or the run fails.
    """
    config = composition.config
    found = from_main_process(lambda: _find_resumed(config))
    changes: list[str] = []
    if found is not None:
        if launched_rank() == 0:
            note(f"resuming {found}")
        composition = resumed_composition(found, composition)
        changes = changed_values(found, composition)
    _check_data(composition, found or (repeated.folder if repeated else None), trust_data)
    begun = repeated.folder if found is None and repeated and repeated.exact else found
    plan = replace(make_plan(composition.config, composition.choices, begun), changes=changes)

    from torch_linguist import pipeline
    from torch_linguist.trainer.callbacks.recorded_progress import read_recorded_progress

    folder = found or from_main_process(lambda: _make_folder(composition))
    if found is None and repeated and repeated.exact:
        plan = replace(plan, recorded_progress=read_recorded_progress(repeated.folder))
    try:
        with process_folder(folder, found is not None) as own:
            return pipeline.run(replace(plan, folder=own, resume=found is not None), process_console())
    except DataError:
        # A corpus that cannot be read, such as one on a hub out of reach: nothing of this run is worth keeping.
        if found is None and launched_rank() == 0 and not (folder / PROGRESS).is_file():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_data(composition: Composition, source: Path | None, trust_data: bool) -> None:
    """Open what a run folder names only if the user has named it too, or trusts the folder."""
    named = {override.key_or_group.partition(".")[0] for override in parse_overrides(composition.overrides)}
    if source is not None and not trust_data and "data" not in named:
        check_data_trusted(composition.config, source)
    elif launched_rank() == 0:
        remember_data(composition.config)


def _find_resumed(config: DictConfig) -> Path | None:
    """Return the run to continue: the one that torchrun has restarted, else the one that `resume=` refers to."""
    earlier = earlier_folder()
    if earlier is not None and is_resumable(earlier):
        return earlier
    return find_resumed(config.resume, Path(config.output_dir), config.name)


def _make_folder(composition: Composition) -> Path:
    config, choices = composition.config, composition.choices
    if (earlier := earlier_folder()) is not None and is_just_started(earlier):
        return earlier
    default = "-".join(choices[group] for group in ("data", "model") if group in choices)
    output_dir = Path(config.output_dir)
    if config.resume == "auto" and config.name:
        named = output_dir / str(config.name)
        if is_just_started(named) or is_locked(named):
            # Another process started the same run at this instant; the lock of the folder decides which one trains.
            return named
    return create_run_folder(output_dir, config.name, default or "run")
