"""Run folders: creating one with a unique name, and finding the one that a user means."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from torch_linguist.errors import ConfigError, LinguistError

SHOWN_RUNS = 3
"""Runs that an error lists when a run does not exist."""


def is_arpa(path: Path) -> bool:
    """Return whether a path is an ARPA file, which the commands take in place of a run folder."""
    return path.name.endswith((".arpa", ".arpa.gz")) and path.is_file()


def create_run_folder(output_dir: Path, name: str | None, default: str) -> Path:
    """Create a folder that belongs to no other run, even if two processes ask at the same instant.

    Args:
        output_dir: parent of the run folders; created if missing.
        name: name of the run; None for `default` with the date and time.
        default: start of a generated name.

    Returns:
        The new folder. If the name is taken, `-2`, `-3`, ... is appended.

    Raises:
        LinguistError: the folder cannot be created.
        ConfigError: the name is not a valid folder name.
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
    raise LinguistError(f"name={name}: 9,999 runs already have this name; choose another")


def list_runs(output_dir: Path = Path("outputs"), *, of_sweeps: bool = False) -> list[Path]:
    """Return the run folders in a folder, the newest first.

    Args:
        output_dir: parent of the run folders.
        of_sweeps: whether to return the runs of the sweeps in the folder instead of single runs.
    """
    folders = [path.parent for path in output_dir.glob("*/*/config.yaml" if of_sweeps else "*/config.yaml")]
    return sorted(folders, key=lambda folder: (_date(folder), folder.name), reverse=True)


def newest_run(output_dir: Path = Path("outputs")) -> Path:
    """Return the newest run in a folder. Runs of sweeps do not count: one of them is named explicitly.

    Raises:
        LinguistError: the folder holds no run.
    """
    folders = list_runs(output_dir)
    if folders:
        return folders[0]
    points = list_runs(output_dir, of_sweeps=True)
    if points:
        raise LinguistError(f"{output_dir}: holds only runs of sweeps; name one of them, such as {points[0]}")
    raise LinguistError(f"{output_dir}: holds no run; name a run folder, or make one with tl-train")


def find_run(named: Path | None, output_dir: Path = Path("outputs")) -> Path:
    """Return the named run, or the newest one.

    Args:
        named: a run folder, the name of a run in `output_dir`, an ARPA file, or None for the newest run.
        output_dir: parent of the run folders.

    Raises:
        LinguistError: there is no such run; the message lists the newest ones.
    """
    if named is None:
        return newest_run(output_dir)
    if is_arpa(named):
        return named
    for folder in (named, output_dir / named):
        if (folder / "config.yaml").is_file():
            return folder
    runs = list_runs(named) if named.is_dir() else []
    if runs:
        raise LinguistError(f"{named}: holds runs but is not a run itself; name one of them, such as {runs[0]}")
    wrong = "is not a run folder (it has no config.yaml)" if named.is_dir() else "no such run"
    newest = ", ".join(map(str, list_runs(output_dir)[:SHOWN_RUNS]))
    raise LinguistError(f"{named}: {wrong}; {f'the newest runs are {newest}' if newest else 'tl-train makes one'}")


def split_runs(named: Sequence[Path], output_dir: Path = Path("outputs")) -> tuple[list[Path], list[str]]:
    """Split paths into run folders (or ARPA files) and files of text; `-` is standard input.

    Args:
        named: folders, names of runs in `output_dir`, and files. A file takes precedence over a run of that name.
        output_dir: parent of the run folders.

    Raises:
        ConfigError: a path is neither a run folder nor a file.
    """
    folders, files = [], []
    for path in named:
        if path.is_dir() or is_arpa(path) or (not path.exists() and (output_dir / path).is_dir()):
            folders.append(find_run(path, output_dir))
        elif path.is_file() or str(path) == "-":
            files.append(str(path))
        else:
            raise ConfigError(f"{path}: there is no such run folder or file")
    return folders, files


def run_labels(folders: Sequence[Path]) -> list[str]:
    """Return short names for runs side by side: folder names, or whole paths where two runs share a name."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _date(folder: Path) -> int:
    """Return the time of the last sign of life of a run, in nanoseconds: its end, or else its start."""
    marks = [folder / "summary.json", folder / "config.yaml"]
    return max((mark.stat().st_mtime_ns for mark in marks if mark.is_file()), default=0)
