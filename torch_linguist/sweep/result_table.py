"""`grid.csv`: grows by whole rows, survives a kill between them, and is believed only as far as it fits its sweep."""

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch_linguist.errors import LinguistError
from torch_linguist.runs.files import write_text
from torch_linguist.sweep.outcomes import FINISHED, RESULTS, STATUSES, Outcome, Run, read_summary

COUNTS = ("seed", "exit_code", "parameters", "train_tokens")
MEASURES = ("lr", "weight_decay", "seconds", "valid_loss", "valid_perplexity", "test_perplexity")
FROM_SUMMARY = {"valid_loss": ("valid", "loss"), "test_perplexity": ("test", "perplexity")}
"""Columns that a run's own summary proves."""


class ResultTable:
    """A CSV file that grows by whole rows.

    Args:
        path: of the file; an earlier one is gone on with.
        swept: keys that differ between the runs.

    Attributes:
        columns: `index`, `folder`, the swept keys, then the results.
    """

    def __init__(self, path: Path, swept: Sequence[str]) -> None:
        self.path = path
        # A swept key that is a column anyway (seed) keeps the place of the swept ones.
        self.columns = ["index", "folder", *swept, *(name for name in RESULTS if name not in swept)]
        if not path.is_file():
            self._write([self.columns])

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row, on disk when this returns.

        Raises:
            LinguistError: it cannot be written; the file is as it was.
        """
        self._write([self._cells(row)])

    def replace(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Puts these rows in the place of all, at once."""
        write_text(self.path, _lines([self.columns, *map(self._cells, rows)]))

    def _cells(self, row: Mapping[str, Any]) -> list[Any]:
        return ["" if row.get(name) is None else row[name] for name in self.columns]

    def _write(self, lines: Sequence[Sequence[Any]]) -> None:
        size = self.path.stat().st_size if self.path.is_file() else 0
        # Without a buffer of its own, which would try again when the file is closed.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        content = _lines(lines).encode("utf-8")
        try:
            while content:
                content = content[os.write(descriptor, content) :]
            os.fsync(descriptor)
        except OSError as error:
            # Half a row would be taken for a whole one by whoever reads the file.
            os.ftruncate(descriptor, size)
            raise LinguistError(
                f"{self.path}: {error.strerror}; make room and start the same sweep again: it goes on, and the runs "
                "that have ended keep their results"
            ) from error
        finally:
            os.close(descriptor)


def read_rows(table: ResultTable, runs: Mapping[int, Run]) -> list[Outcome]:
    """The outcomes that the file of an earlier start holds; half a row at its end is left out.

    Args:
        table: whose file is read.
        runs: of the sweep, by index.

    Returns:
        In the file's order.

    Raises:
        LinguistError: the file is not what this sweep wrote; the line and the column are named.
    """
    content = table.path.read_bytes()
    # A row is a line: what follows the last end of a line is half a row, perhaps half a character.
    content = content[: content.rfind(b"\n") + 1]
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _edited(table.path, 1, f"cannot be read ({error})") from error
    if not lines:
        return []
    if lines[0] != table.columns:
        strange = sorted(set(lines[0]) ^ set(table.columns)) or ["the order of the columns"]
        raise _edited(table.path, 1, f"its columns are not those of this sweep ({', '.join(strange)})")
    outcomes: dict[int, Outcome] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(table.columns):
            raise _edited(table.path, number, f"has {len(cells)} cells in place of {len(table.columns)}")
        outcome = _outcome(table.path, number, dict(zip(table.columns, cells, strict=True)), runs)
        if outcome.run.index in outcomes:
            raise _edited(table.path, number, f"is a second row of run {outcome.run.index}")
        outcomes[outcome.run.index] = outcome
    return list(outcomes.values())


def _outcome(path: Path, number: int, row: Mapping[str, str], runs: Mapping[int, Run]) -> Outcome:
    """The outcome of a row that fits its run and the run's own folder."""
    run = runs.get(int(row["index"])) if row["index"].isdecimal() else None
    if run is None:
        raise _edited(path, number, f"index={row['index']} is not a run of this sweep")
    expected = {"folder": run.folder.name, **run.swept, "command": run.command}
    for name, value in expected.items():
        if row[name] != value:
            raise _edited(path, number, f"{name}={row[name]} was {value}")
    if row["status"] not in STATUSES:
        raise _edited(path, number, f"status={row['status']} is none of {', '.join(STATUSES)}")
    results: dict[str, Any] = {name: row[name] for name in RESULTS}
    for name in (*COUNTS, *MEASURES):
        if not (name == "seed" and "seed" in run.swept):
            results[name] = _number(path, number, name, row[name], whole=name in COUNTS)
    if row["status"] == FINISHED:
        _check_against_summary(path, number, results, read_summary(run.folder))
    return Outcome(run, results)


def _check_against_summary(path: Path, number: int, row: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """A result that the run's own summary contradicts was edited; a folder that is gone proves nothing."""
    for name, (part, key) in FROM_SUMMARY.items():
        score = summary.get(part)
        proof = score.get(key) if isinstance(score, Mapping) else None
        if isinstance(proof, int | float) and row[name] != proof:
            raise _edited(path, number, f"{name}={row[name]} is {proof} in the run's summary.json")


def _number(path: Path, number: int, name: str, text: str, whole: bool) -> int | float | None:
    if text == "":
        return None
    try:
        return int(text) if whole else float(text)
    except ValueError:
        raise _edited(path, number, f"{name}={text} is not a number") from None


def _edited(path: Path, number: int, what: str) -> LinguistError:
    return LinguistError(
        f"{path}, line {number}: {what}; put it back as it was, delete the line (a run that finished is not made "
        "again), or start a new sweep under another name="
    )


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_plain(value) for value in row])
    return text.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    return " ".join(value.split("\n")) if isinstance(value, str) else value
