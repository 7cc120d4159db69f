"""The files behind a path: the text files among them, and the split of each."""

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch_linguist.data.corpora.corpus import SPLITS
from torch_linguist.errors import DataError

TABLE_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
TEXT_SUFFIXES = (".txt", ".tokens", ".raw")

_SPLIT_NAME = re.compile(
    r"(?:(?P<train>train|training)|(?P<valid>valid|val|validation|validate|dev|development)|(?P<test>test|testing))"
    r"(?:set|data|split)?\d*"
)
_ABOUT = re.compile(r"(?i)(readme|licen[cs]e|copying|copyright|notice|changelog|citation|authors|contributing)\b.*")
_SHOWN = 4


@dataclass(frozen=True)
class SourceFiles:
    """Files of a corpus.

    Attributes:
        root: folder that file names are relative to.
        files: files to read, in order.
        splits: files of each ready split, `train` among them; None if the files carry no split names.
        notes: one line for each kind of file that is left out.
    """

    root: Path
    files: Sequence[Path]
    splits: dict[str, list[Path]] | None = None
    notes: list[str] = field(default_factory=list)

    def relative(self, file: Path) -> str:
        """Return the name of a file below the root, with forward slashes."""
        return file.relative_to(self.root).as_posix()

    def listed(self, files: Sequence[Path]) -> str:
        """Return the names of a few files, or of the first ones and the number of all."""
        return _listed([self.relative(file) for file in files])


def table_suffix(path: Path) -> str | None:
    """Return the suffix of a table in lower case, without `.gz`; None for any other file."""
    suffix = _suffix(path)
    return suffix if suffix in TABLE_SUFFIXES else None


def find_source_files(path: str | Path, ready_splits: bool | None = None) -> SourceFiles:
    """Find the files of a path and the split of each.

    A file or one of its folders belongs to a split if a part of its name is `train`, `valid`, `val`, `dev`,
    `validation`, `test` and the like, in any case: `ptb.train.txt`, `train-00000-of-00002.parquet`, `test/pos/1.txt`.
    Hidden files, files about the corpus (README, LICENSE) and empty files are left out, and so is every format but one.

    Args:
        path: a file, a folder, or a pattern; `~` is the home folder.
        ready_splits: whether file names determine the splits; None if they do so only where split names exist.

    Raises:
        DataError: there is no file with text, or the names are those of splits but `train` and a held-out split are not
            both there.
    """
    location = Path(path).expanduser()
    if location.is_file():
        if location.stat().st_size == 0:
            raise DataError(f"data.path={path}: the file is empty; add text to it")
        return SourceFiles(location.parent, [location])
    notes: list[str] = []
    root, everything = _everything(path, location, notes)
    kept = _without(everything, root, notes)
    groups = _formats(kept, named=not location.is_dir())
    if not groups:
        raise DataError(
            f"data.path={path}: the folder has no .txt file{_reasons(notes)}; name a file, or a pattern such as "
            f"{path}/*.md (tables: {', '.join(TABLE_SUFFIXES)})"
        )
    group, splits = _chosen(path, root, groups, ready_splits)
    _note(notes, "another format", root, [file for file in kept if file not in set(group)])
    if splits is None:
        return SourceFiles(root, group, None, notes)
    files = [file for split in SPLITS for file in splits.get(split, [])]
    _note(notes, "no split in the name", root, [file for file in group if file not in set(files)])
    return SourceFiles(root, files, splits, notes)


def below_here(path: Path) -> str:
    """Return the folder of a relative path for an error message; an empty text for an absolute path."""
    return "" if path.is_absolute() else f" below {Path.cwd()}"


def split_of(name: str) -> str | None:
    """Return the split that a relative file name indicates; the outermost folder takes precedence."""
    *folders, file = Path(name.lower()).parts
    for part in (*folders, file.split(".gz")[0]):
        words = re.split(r"[^a-z0-9]+", part)
        found = {match.lastgroup for word in words if (match := _SPLIT_NAME.fullmatch(word))}
        if len(found) == 1:
            return found.pop()
    return None


def _everything(path: str | Path, location: Path, notes: list[str]) -> tuple[Path, list[Path]]:
    """Return all files below a folder or behind a pattern, and the folder that their names are relative to."""
    if location.is_dir():
        entries = sorted(entry for entry in location.rglob("*") if not entry.is_dir())
        # Reading a pipe or a device may never end.
        _note(notes, "no regular file", location, [entry for entry in entries if not entry.is_file()])
        return location, [entry for entry in entries if entry.is_file()]
    if location.exists():
        raise DataError(f"data.path={path}: is neither a file nor a folder; give the path of a text file")
    names = glob.glob(str(location), recursive=True)  # noqa: PTH207
    found = sorted(Path(name) for name in names if Path(name).is_file())
    if not found:
        raise DataError(
            f"data.path={path}: no such file or folder{below_here(location)}; "
            "give the path of a text file or a folder of .txt files"
        )
    parts = Path(glob.escape(str(location)) if location.exists() else location).parts
    plain = parts[: next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)]
    return Path(*plain), found


def _without(files: Iterable[Path], root: Path, notes: list[str]) -> list[Path]:
    """Return the files without hidden files, documentation, empty files and compressed copies."""
    reasons: dict[str, list[Path]] = {}
    kept = []
    everything = list(files)
    names = set(everything)
    for file in everything:
        reason = _reason(file, root, names)
        if reason:
            reasons.setdefault(reason, []).append(file)
        else:
            kept.append(file)
    for reason, left in reasons.items():
        _note(notes, reason, root, left)
    return kept


def _reason(file: Path, root: Path, names: set[Path]) -> str | None:
    parts = file.relative_to(root).parts
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return "hidden"
    if _ABOUT.fullmatch(file.name):
        return "about the corpus"
    if file.stat().st_size == 0:
        return "empty"
    if file.name.endswith(".gz") and file.with_name(file.name.removesuffix(".gz")) in names:
        return "packed copies"
    return None


def _formats(files: Sequence[Path], named: bool) -> list[list[Path]]:
    """Group the files by format: texts first, then tables, the most numerous format first.

    Args:
        files: files to group.
        named: whether a pattern selected the files, so that a text may have any suffix.
    """
    texts = [file for file in files if (_suffix(file) in TEXT_SUFFIXES) or (named and not table_suffix(file))]
    tables: dict[str, list[Path]] = {}
    for suffix in TABLE_SUFFIXES:
        found = [file for file in files if table_suffix(file) == suffix]
        tables.setdefault(suffix.replace(".jsonl", ".json"), []).extend(found)
    by_number = sorted(tables.values(), key=lambda group: -len(group))
    return [sorted(group) for group in (texts, *by_number) if group]


def _chosen(
    path: str | Path, root: Path, groups: Sequence[list[Path]], ready_splits: bool | None
) -> tuple[list[Path], dict[str, list[Path]] | None]:
    """Return the files of the format to read, by split."""
    if ready_splits is False:
        return groups[0], None
    by_group = [_by_split(group, root) for group in groups]
    for group, found in zip(groups, by_group, strict=True):
        if "train" in found and len(found) > 1:
            return group, found
    for group, found in zip(groups, by_group, strict=True):
        if ready_splits is None and found.keys() == {"train"} and len(found["train"]) == len(group):
            return group, None
    for found in by_group:
        if found:
            split, files = next(iter(found.items()))
            raise DataError(
                f"data.path={path}: {files[0].relative_to(root)} looks like the ready split {split}, but there is no "
                f"{'held-out split' if split == 'train' else 'train'} beside it; name the files train, valid and test, "
                "or set data.ready_splits=false to ignore their names"
            )
    if ready_splits:
        raise DataError(f"data.path={path}: no file is named train, valid or test; set data.ready_splits=null")
    return groups[0], None


def _by_split(files: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in files:
        if split := split_of(file.relative_to(root).as_posix()):
            found.setdefault(split, []).append(file)
    return {split: found[split] for split in SPLITS if split in found}


def _note(notes: list[str], reason: str, root: Path, files: Sequence[Path]) -> None:
    if files:
        plural = "s are" if len(files) > 1 else " is"
        names = _listed([file.relative_to(root).as_posix() for file in files])
        notes.append(f"{len(files)} file{plural} left out ({reason}): {names}")


def _reasons(notes: Sequence[str]) -> str:
    return f" ({'; '.join(notes)})" if notes else ""


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[: _SHOWN - 1])} and {len(names) - _SHOWN + 1:,} more"


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix
