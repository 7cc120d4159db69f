"""`grid.csv`: a table that grows by whole rows, survives kills, and is checked when it is read back."""

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch_linguist.errors import LinguistError
from torch_linguist.runs.csv_table import defused
from torch_linguist.runs.files import write_text
from torch_linguist.sweep.outcomes import FINISHED, RESULTS, STATUSES, Outcome, SweepRun, read_summary

COUNTS = ("seed", "exit_code", "parameters", "train_tokens")
MEASURES = ("lr", "weight_decay", "seconds", "valid_loss", "valid_perplexity", "test_perplexity")
VERIFIED = ("valid_loss", "test_perplexity")
"""Columns that are compared with the run's own summary."""


class ResultTable:
    """A CSV file that grows by whole rows.

    Args:
        path: the file; an existing one is continued.
        swept: keys that differ between the runs.

    Attributes:
        columns: `index`, `folder`, the swept keys, then the results.
    """

    def __init__(self, path: Path, swept: Sequence[str]) -> None:
        self.path = path
        # A swept key that is also a result (seed) stays among the swept keys.
        self.columns = ["index", "folder", *swept, *(name for name in RESULTS if name not in swept)]
        if not path.is_file():
            self._append([self.columns])

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; it is on disk when this returns.

        Raises:
            LinguistError: the row cannot be written; the file is unchanged.
        """
        self._append([self._cells(row)])

    def replace(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace all rows at once."""
        write_text(self.path, _csv_text([self.columns, *map(self._cells, rows)]))

    def _cells(self, row: Mapping[str, Any]) -> list[Any]:
        return ["" if row.get(name) is None else row[name] for name in self.columns]

    def _append(self, lines: Sequence[Sequence[Any]]) -> None:
        size = self.path.stat().st_size if self.path.is_file() else 0
        # Unbuffered: a buffer would retry a failed write when the file is closed.
        content = _csv_text(lines).encode("utf-8")
        file = self.path.open("ab", buffering=0)
        try:
            while content:
                content = content[os.write(file.fileno(), content) :]
            os.fsync(file.fileno())
        except OSError as error:
            # A reader would take a partial row for a whole one.
            os.ftruncate(file.fileno(), size)
            raise LinguistError(
                f"{self.path}: {error.strerror}; free some space and start the same sweep again: it continues, and "
                "finished runs keep their results"
            ) from error
        finally:
            file.close()


def read_rows(table: ResultTable, runs: Mapping[int, SweepRun]) -> list[Outcome]:
    """Read the outcomes that an earlier start wrote; a partial row at the end is left out.

    Returns:
        The outcomes in the order of the file.

    Raises:
        LinguistError: the file was not written by this sweep; the message names the line and the column.
    """
    content = table.path.read_bytes()
    # A row is a line. Whatever follows the last line ending is a partial row, perhaps a partial character.
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
            raise _edited(table.path, number, f"has {len(cells)} cells instead of {len(table.columns)}")
        outcome = _checked_outcome(table.path, number, dict(zip(table.columns, cells, strict=True)), runs)
        if outcome.run.index in outcomes:
            raise _edited(table.path, number, f"is a second row of run {outcome.run.index}")
        outcomes[outcome.run.index] = outcome
    return list(outcomes.values())


def _checked_outcome(path: Path, number: int, row: Mapping[str, str], runs: Mapping[int, SweepRun]) -> Outcome:
    """Return the outcome of a row that agrees with its run and the run's folder."""
    run = runs.get(int(row["index"])) if row["index"].isdecimal() else None
    if run is None:
        raise _edited(path, number, f"index={row['index']} is not a run of this sweep")
    expected = {"folder": run.folder.name, **run.swept, "command": run.command}
    for name, value in expected.items():
        if row[name] != _cell(value):
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
    """Refuse a result that differs from the run's own summary; a missing folder proves nothing."""
    for name in VERIFIED:
        part, key = RESULTS[name]
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
        f"{path}, line {number}: {what}; restore the line, delete it (a finished run is not made again), or start a "
        "new sweep under another name="
    )


def _csv_text(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    return defused(" ".join(value.split("\n"))) if isinstance(value, str) else value
