"""Run folders: a new one with a name of its own, and the one that is meant when none is named."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from torch_linguist.errors import ConfigError, LinguistError


def create_run_folder(output_dir: Path, name: str | None, default: str) -> Path:
    """Makes a folder that no other run has, also when two ask for it in the same instant.

    Args:
        output_dir: the folder of all runs; made if it is not there.
        name: the run's name; None for `default` with the date and time.
        default: what a run without a name is called.

    Returns:
        The new folder. Where the name is taken, `-2`, `-3`, ... is added to it.

    Raises:
        LinguistError: the folder cannot be made.
        ConfigError: the name is not one of a folder.
    """
    if name is not None and (not name.strip() or name == ".." or Path(name).name != name):
        raise ConfigError(f"name={name!r}: must be the name of a folder, without slashes")
    stem = name or f"{default}-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            folder = output_dir / (stem if number == 1 else f"{stem}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise LinguistError(
            f"output_dir={output_dir}: cannot be written ({error.strerror}); choose another by output_dir=FOLDER"
        ) from error
    raise LinguistError(f"name={name}: 9,999 runs have this name already; choose another")


def list_runs(output_dir: Path = Path("outputs")) -> list[Path]:
    """The runs below a folder, those of a grid included, the newest first.

    Args:
        output_dir: where run folders are made.
    """
    folders = [path.parent for level in ("*", "*/*") for path in output_dir.glob(f"{level}/config.yaml")]
    return sorted(folders, key=lambda folder: (_date(folder), folder.name), reverse=True)


def newest_run(output_dir: Path = Path("outputs")) -> Path:
    """The newest run below a folder, runs of a grid included.

    Args:
        output_dir: where run folders are made.

    Raises:
        LinguistError: there is no run.
    """
    folders = list_runs(output_dir)
    if not folders:
        raise LinguistError(f"{output_dir}: there is no run here; name a run folder, or make one with tl-train")
    return folders[0]


def find_run(named: Path | None, output_dir: Path = Path("outputs")) -> Path:
    """The run that is named, or the newest one.

    Args:
        named: a run folder, or None.
        output_dir: where the newest is looked for.

    Raises:
        LinguistError: it is no run folder, or there is none.
    """
    if named is None:
        return newest_run(output_dir)
    if not named.is_dir():
        raise LinguistError(f"{named}: there is no such run folder")
    if not (named / "config.yaml").is_file():
        raise LinguistError(f"{named}: is not a run folder (it holds no config.yaml); tl-train makes one")
    return named


def run_labels(folders: Sequence[Path]) -> list[str]:
    """What runs are called side by side: their names, or their whole paths where two share one."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _date(folder: Path) -> int:
    """When a run last told of itself, in nanoseconds: at its end, or else at its start."""
    marks = [folder / "summary.json", folder / "config.yaml"]
    return max((mark.stat().st_mtime_ns for mark in marks if mark.is_file()), default=0)


__all__ = ["create_run_folder", "find_run", "list_runs", "newest_run", "run_labels"]
