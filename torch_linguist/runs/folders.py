"""Run folders: creating one with a unique name, and finding the one that a command means."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from torch_linguist.errors import ConfigError, LinguistError


def create_run_folder(output_dir: Path, name: str | None, default: str) -> Path:
    """Create a folder that no other run has, even one started at the same instant.

    Args:
        output_dir: folder of all runs, created if missing.
        name: name of the run; None for `default` with date and time.
        default: first part of the name of a run without one.

    Returns:
        The new folder. If the name is taken, `-2`, `-3`, ... is appended.

    Raises:
        LinguistError: the folder cannot be created.
        ConfigError: the name is not a folder name.
    """
    if name is not None and (not name.strip() or name == ".." or Path(name).name != name):
        raise ConfigError(f"name={name!r}: must be a folder name, without slashes")
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
            f"output_dir={output_dir}: cannot be written ({error.strerror}); choose another with output_dir=FOLDER"
        ) from error
    raise LinguistError(f"name={name}: 9,999 runs have this name already; choose another")


def list_runs(output_dir: Path = Path("outputs")) -> list[Path]:
    """Return the runs in a folder, including those of sweeps, newest first.

    Args:
        output_dir: folder of all runs.
    """
    folders = [path.parent for level in ("*", "*/*") for path in output_dir.glob(f"{level}/config.yaml")]
    return sorted(folders, key=lambda folder: (_date(folder), folder.name), reverse=True)


def newest_run(output_dir: Path = Path("outputs")) -> Path:
    """Return the newest run in a folder, including those of sweeps.

    Args:
        output_dir: folder of all runs.

    Raises:
        LinguistError: there is no run.
    """
    folders = list_runs(output_dir)
    if not folders:
        raise LinguistError(f"{output_dir}: holds no run; name a run folder, or create one with tl-train")
    return folders[0]


def find_run(named: Path | None, output_dir: Path = Path("outputs")) -> Path:
    """Return the run that is named, or the newest one.

    Args:
        named: run folder; None for the newest.
        output_dir: folder of all runs.

    Raises:
        LinguistError: the folder is not a run folder, or there is no run.
    """
    if named is None:
        return newest_run(output_dir)
    if not named.is_dir():
        raise LinguistError(f"{named}: no such run folder")
    if not (named / "config.yaml").is_file():
        raise LinguistError(f"{named}: is not a run folder (it has no config.yaml); tl-train creates one")
    return named


def run_labels(folders: Sequence[Path]) -> list[str]:
    """Return names that tell runs apart: folder names, or whole paths if two folders share a name."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _date(folder: Path) -> int:
    """Return when a run ended, or else started, in nanoseconds."""
    marks = [folder / "summary.json", folder / "config.yaml"]
    return max((mark.stat().st_mtime_ns for mark in marks if mark.is_file()), default=0)


__all__ = ["create_run_folder", "find_run", "list_runs", "newest_run", "run_labels"]
