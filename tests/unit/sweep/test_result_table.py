"""The table of a sweep: whole rows, whatever happened to the file; and what is read beside it."""

import csv
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torch_linguist.errors import LinguistError
from torch_linguist.sweep.outcomes import Outcome, ProcessExit, SweepRun, outcome_of
from torch_linguist.sweep.result_table import ResultTable, read_rows
from torch_linguist.sweep.run_progress import RunProgress
from torch_linguist.sweep.sweep_folder import recover
from torch_linguist.sweep.sweep_statistics import importance

KEYS = ("model", "note")


def runs_in(folder: Path, count: int = 3) -> list[SweepRun]:
    return [
        SweepRun(
            index=index,
            folder=folder / f"{index:03}",
            log=folder / "logs" / f"{index:03}.txt",
            arguments=(),
            command=f"tl-train model=m{index} 'note=a, \"b\" é'",
            swept={"model": f"m{index}", "note": 'a, "b" é'},
        )
        for index in range(1, count + 1)
    ]


def finish(run: SweepRun) -> Outcome:
    run.folder.mkdir(parents=True, exist_ok=True)
    summary = {"status": "finished", "seed": 1, "valid": {"loss": 1 / (run.index + 2), "perplexity": 1.5}}
    summary |= {"test": {"perplexity": 0.1 + run.index}, "parameters": 7, "lr": 1e-5, "weight_decay": 0.0}
    (run.folder / "summary.json").write_text(json.dumps(summary))
    return outcome_of(run, ProcessExit(0, 1.25))


def written(folder: Path) -> tuple[ResultTable, list[SweepRun], list[Outcome]]:
    runs = runs_in(folder)
    table = ResultTable(folder / "grid.csv", KEYS)
    outcomes = [finish(run) for run in runs]
    for outcome in outcomes:
        table.append(outcome.row())
    return table, runs, outcomes


def go_on(table: ResultTable, runs: Sequence[SweepRun]) -> tuple[list[int], list[int]]:
    state = recover(table, runs, retry_failed=False, resume_arguments=lambda folder: [], note=lambda line: None)
    return [one.run.index for one in state.ended], [run.index for run in state.waiting]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    table, runs, outcomes = written(tmp_path)
    assert read_rows(table, {run.index: run for run in runs}) == outcomes
    failed = outcome_of(runs[0], ProcessExit(1, 3.0, "two\nlines"))
    table.replace([failed.row()])
    (back,) = read_rows(table, {1: runs[0]})
    assert (back.status, back.exit_code, back.error, back.valid_loss) == ("failed", 1, "two lines", 1 / 3)
    assert len(set(table.columns)) == len(table.columns)
    assert len(table.path.read_text().splitlines()) == 2


def test_wherever_the_file_was_cut_no_row_is_lost_or_doubled(tmp_path: Path) -> None:
    table, runs, _ = written(tmp_path)
    whole = table.path.read_bytes()
    expected = sorted(map(str, rows_of(table.path)))
    for cut in [*range(0, len(whole), 7), *range(whole.rfind(b"\n", 0, -1), len(whole))]:
        table.path.write_bytes(whole[:cut])
        ended, waiting = go_on(table, runs)
        assert (sorted(ended), waiting) == ([1, 2, 3], [])
        found = rows_of(table.path)
        for row in found:
            row["seconds"] = "1.25"
        assert sorted(map(str, found)) == expected, cut


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_changes_nothing(place: int, byte: int, tmp_path: Path) -> None:
    folder = tmp_path / "same"
    if not folder.exists():
        folder.mkdir()
        written(folder)
        (folder / "keep").write_bytes((folder / "grid.csv").read_bytes())
    whole = bytearray((folder / "keep").read_bytes())
    whole[place % len(whole)] = byte
    (folder / "grid.csv").write_bytes(bytes(whole))
    runs = runs_in(folder)
    try:
        outcomes = read_rows(ResultTable(folder / "grid.csv", KEYS), {run.index: run for run in runs})
    except LinguistError:
        return
    assert {one.run.index for one in outcomes} <= {1, 2, 3}
    for one in outcomes:
        assert one.valid_loss == pytest.approx(1 / (one.run.index + 2), rel=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("index,folder", "index,place", r"line 1: its columns are not those of this sweep \(folder, place\)"),
        ("2,002,m2", "2,002,m7", r"line 3: model=m7 was m2; restore the line"),
        ("2,002,m2", "9,002,m2", r"line 3: index=9 is not a run of this sweep"),
        ("2,002,m2", "x,002,m2", r"line 3: index=x is not a run of this sweep"),
        ("3,003,m3", "2,002,m3", r"line 4: model=m3 was m2"),
        ("0.25,", "0.35,", r"line 3: valid_loss=0.35 is 0.25 in the run's summary.json"),
        ("0.25,", "low,", r"line 3: valid_loss=low is not a number"),
        ("finished", "good", r"line 2: status=good is none of finished, failed"),
        (",7,", ",7,7,", r"line 2: has 18 cells instead of 17"),
    ],
)
def test_an_edited_table_is_refused_with_its_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    table, runs, _ = written(tmp_path)
    text = table.path.read_text()
    assert old in text
    table.path.write_text(text.replace(old, new, 1))
    before = table.path.read_text()
    with pytest.raises(LinguistError, match=message):
        go_on(table, runs)
    assert table.path.read_text() == before


def test_a_row_twice_is_refused(tmp_path: Path) -> None:
    table, runs, outcomes = written(tmp_path)
    table.append(outcomes[0].row())
    with pytest.raises(LinguistError, match=r"line 5: is a second row of run 1"):
        go_on(table, runs)


def test_a_full_disk_leaves_the_table_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, runs, outcomes = written(tmp_path)
    before = table.path.read_bytes()
    real, room = os.write, [40]

    def write(descriptor: int, content: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        done = real(descriptor, content[: room[0]])
        room[0] = 0
        return done

    with monkeypatch.context() as patch:
        patch.setattr("torch_linguist.sweep.result_table.os.write", write)
        with pytest.raises(LinguistError, match=r"grid.csv: No space left on device; free some space and start"):
            table.append(outcomes[0].row())
    assert table.path.read_bytes() == before
    assert go_on(table, runs) == ([1, 2, 3], [])


def test_what_a_run_left_decides_whether_it_is_made_again(tmp_path: Path) -> None:
    runs = runs_in(tmp_path)
    table = ResultTable(tmp_path / "grid.csv", KEYS)
    table.append(finish(runs[0]).row())
    finish(runs[1])
    runs[2].folder.mkdir()
    (runs[2].folder / "summary.json").write_text('{"status": "interrupted", "valid": {"loss": 3}}')
    state = recover(
        table, runs, retry_failed=False, resume_arguments=lambda folder: [f"resume={folder}"], note=lambda line: None
    )
    assert [one.run.index for one in state.ended] == [1, 2]
    assert [run.arguments for run in state.waiting] == [(f"resume={runs[2].folder}",)]
    assert runs[2].folder.is_dir()
    assert go_on(table, runs) == ([1, 2], [3])
    assert not runs[2].folder.exists()


def test_a_watch_reads_whole_lines_and_restarts_after_dropped_rows(tmp_path: Path) -> None:
    watch = RunProgress(tmp_path / "run")
    assert not watch.update()
    (tmp_path / "run").mkdir()
    progress = tmp_path / "run" / "progress.json"
    progress.write_text('{"running": {"stage": "lr_find", "tables": ["lr_trials.csv", "lr_finder.csv"]}}')
    (tmp_path / "run" / "lr_finder.csv").write_text("step,lr,loss\n1,0.1,5.5\n")
    assert (watch.update(), watch.stage, watch.loss) == (False, "lr_find", 5.5)
    progress.write_text('{"running": {"stage": "fit", "tables": ["metrics.csv"]}}')
    path = tmp_path / "run" / "metrics.csv"
    path.write_text("step,train_loss,valid_loss\n10,4.5,\n20,4.25,4.")
    assert (watch.update(), watch.stage, watch.step, watch.loss) == (False, "fit", 10, 4.5)
    with path.open("a") as file:
        file.write("75\n30,nan,inf\n")
    assert (watch.update(), watch.valid_losses, watch.step, watch.loss) == (True, [4.75], 30, 4.25)
    path.write_text("step,train_loss,valid_loss\n10,4.5,\n")
    assert (watch.update(), watch.valid_losses, watch.step) == (False, [], 10)


def test_importance_is_one_way_analysis_of_variance_corrected_for_chance() -> None:
    source = np.random.default_rng(1)
    model = source.choice(["a", "b", "c"], 60)
    noise = source.uniform(size=60)
    losses = pd.Series(np.where(model == "a", 1.0, 2.0) + 0.3 * noise)
    frame = pd.DataFrame({"noise": noise, "model": model, "other": source.integers(0, 3, 60)})
    found = importance(frame, losses)
    assert list(found.index) == ["model", "noise", "other"]
    # Independently: by least squares on indicator columns, 1 - (1 - R2) (n - 1) / (n - k), which is the same number.
    columns = np.stack([(model == name).astype(float) for name in "abc"], axis=1)
    fitted = columns @ np.linalg.lstsq(columns, losses.to_numpy(), rcond=None)[0]
    r2 = 1 - ((losses - fitted) ** 2).sum() / ((losses - losses.mean()) ** 2).sum()
    assert found["model"] == pytest.approx(1 - (1 - r2) * 59 / 57)
    # Chance explains nothing on average, which a bare share of the variance would get wrong.
    shares = [
        importance(pd.DataFrame({"x": source.choice(list("abcd"), 12)}), pd.Series(source.normal(size=12)))["x"]
        for _ in range(200)
    ]
    assert np.median(shares) < 0.05
    assert importance(pd.DataFrame({"x": [1, 2]}), pd.Series([3.0, 3.0]))["x"] == 0
    assert importance(pd.DataFrame({"x": [1, 2]}), pd.Series([3.0, 4.0]))["x"] == 1


def test_a_loss_that_is_no_number_is_none(tmp_path: Path) -> None:
    (run,) = runs_in(tmp_path, 1)
    values: list[Any] = [None, math.inf, math.nan, "x"]
    for value in values:
        outcome = Outcome(run, {**finish(run).results, "valid_loss": value})
        assert outcome.valid_loss is None
