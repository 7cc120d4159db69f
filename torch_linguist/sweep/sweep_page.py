"""The page of a sweep: its runs, what the keys do, and the learning curves, in one self-contained file."""

import functools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from torch_linguist.report.page import write_page
from torch_linguist.report.page_parts import Page, PageFigure, PageTable, Section
from torch_linguist.sweep.outcomes import FINISHED, Outcome
from torch_linguist.sweep.sweep_figures import (
    draw_curves,
    draw_effect,
    draw_importance,
    draw_key_heatmap,
    draw_parallel,
)
from torch_linguist.sweep.sweep_statistics import importance

SHOWN_ROWS = 40
LEAST_RUNS = 2
EFFECTS = 6


def write_sweep_page(folder: Path, outcomes: Sequence[Outcome], seeds: pd.DataFrame | None) -> Path:
    """Write `index.html` with `figures/` and `tables/`.

    Args:
        folder: folder of the sweep.
        outcomes: outcomes of the runs that ended.
        seeds: one row per point over its seeds; None if every point has one seed.

    Returns:
        The page.
    """
    frame = runs_frame(outcomes)
    finished = frame[(frame["status"] == FINISHED) & frame["valid_loss"].notna()].reset_index(drop=True)
    sections = [_runs(frame, finished, outcomes, seeds)]
    keys = [key for key in swept_keys(outcomes) if len(finished) and finished[key].nunique() > 1]
    if keys and len(finished) >= LEAST_RUNS:
        sections.append(_keys(finished, keys))
    curves = learning_curves(outcomes)
    if curves:
        sections.append(_curves(curves, outcomes))
    counts = ", ".join(f"{count} {status}" for status, count in frame["status"].value_counts().items())
    commands = []
    if len(finished):
        best = [str(folder / name) for name in finished["folder"].head(2)]
        commands = [
            (str(finished["command"].iloc[0]), "Repeat the best run, for example with another seed:"),
            (shlex.join(["tl-analyze", *best]), "What the best runs learned:"),
        ]
    return write_page(
        folder, Page(f"The sweep {folder.name}", f"{len(frame)} runs: {counts}", sections, commands=commands)
    )


def runs_frame(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return one row per run, the best first; swept keys become numeric where all their values are numbers."""
    frame = pd.DataFrame([one.row() for one in outcomes])
    for key in swept_keys(outcomes):
        numbers = pd.to_numeric(frame[key], errors="coerce")
        if numbers.notna().all():
            frame[key] = numbers
    for name in ("valid_loss", "valid_perplexity", "test_perplexity", "seconds"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return frame.sort_values(["valid_loss", "index"], na_position="last", ignore_index=True)


def swept_keys(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the keys that differ between the runs."""
    return list(outcomes[0].run.swept) if outcomes else []


def learning_curves(outcomes: Sequence[Outcome]) -> dict[str, pd.DataFrame]:
    """Return `step` and `valid_loss` by run name; runs without a validation are left out."""
    curves: dict[str, pd.DataFrame] = {}
    for one in outcomes:
        try:
            metrics = pd.read_csv(one.run.folder / "metrics.csv", usecols=["step", "valid_loss"])
        except (OSError, ValueError):
            continue
        numbers = metrics.apply(pd.to_numeric, errors="coerce").dropna()
        if len(numbers):
            curves[f"{one.run.folder.name}  {one.run.label}"[:60]] = numbers
    return curves


def _runs(
    frame: pd.DataFrame, finished: pd.DataFrame, outcomes: Sequence[Outcome], seeds: pd.DataFrame | None
) -> Section:
    text, findings = ["No run finished."], list[str]()
    if len(finished):
        best = finished.iloc[0]
        keys = ", ".join(f"{key}={best[key]}" for key in swept_keys(outcomes))
        text = [f"Best: run {best['folder']}, valid loss {best['valid_loss']:.4f}. To repeat it: {best['command']}"]
        reached = f"perplexity {best['valid_perplexity']:,.4g} on valid"
        findings = [f"Run {best['folder']} is best: {reached}{' with ' if keys else ''}{keys}."]
    columns = ["folder", *swept_keys(outcomes), "status", "parameters", "valid_loss", "valid_perplexity"]
    columns += ["test_perplexity", "seconds", "error"]
    shown = frame[list(dict.fromkeys(columns))].copy()
    if not shown["error"].any():
        shown = shown.drop(columns="error")
    tables = [
        PageTable("runs", "Runs, the best first", shown, rows=SHOWN_ROWS, plain=("folder", *swept_keys(outcomes)))
    ]
    if seeds is not None:
        means = seeds.drop(columns="point")
        caption = "Mean and sample standard deviation over the finished seeds of each point."
        tables.insert(0, PageTable("seeds", "Points, averaged over seeds", means, caption, rows=SHOWN_ROWS))
    return Section("runs", "Runs", text, tables=tables, findings=findings)


def _keys(finished: pd.DataFrame, keys: Sequence[str]) -> Section:
    values, losses = finished[list(keys)], finished["valid_loss"]
    figures = []
    cells = len(values.drop_duplicates())
    if len(keys) == 2 and cells == values.iloc[:, 0].nunique() * values.iloc[:, 1].nunique():
        figures.append(
            PageFigure(
                "heatmap",
                f"{keys[0]} and {keys[1]}",
                "Validation loss in nats per token, averaged where a cell has several runs. The best cell is framed.",
                lambda path: draw_key_heatmap(values, losses, path),
            )
        )
    elif len(keys) >= 2:
        figures.append(
            PageFigure(
                "parallel",
                "Parallel coordinates",
                "Each line is a run, through its values to its validation loss. Dark is worse; the best run is red.",
                lambda path: draw_parallel(values, losses, path),
            )
        )
    shares = importance(values, losses)
    table = pd.DataFrame({"key": shares.index, "share": shares.to_numpy()})
    tables = [PageTable("importance", "Importance", table, "Kelley's epsilon squared.", rows=0, shares=("share",))]
    if len(keys) >= 2:
        caption = (
            "Share of the variance of the validation loss that the values of a key explain by themselves, corrected "
            f"for chance (one-way analysis of variance over {len(finished)} runs). Interactions are not included."
        )
        figures.append(PageFigure("importance", "Importance", caption, lambda path: draw_importance(shares, path)))
    for number, key in enumerate(list(shares.index)[:EFFECTS]):
        figures.append(
            PageFigure(
                f"effect-{number + 1}",
                str(key),
                "Each point is a run; the diamond is the best.",
                functools.partial(draw_effect, str(key), finished[str(key)], losses),
            )
        )
    top = f"{shares.index[0]} matters most: it explains {shares.iloc[0]:.0%} of the variance of the validation loss."
    findings = [top] if len(keys) >= 2 and shares.iloc[0] > 0 else []
    return Section("keys", "What the keys do", figures=figures, tables=tables, findings=findings)


def _curves(curves: Mapping[str, pd.DataFrame], outcomes: Sequence[Outcome]) -> Section:
    names = {f"{one.run.folder.name}  {one.run.label}"[:60]: one.valid_loss for one in outcomes}
    losses = {name: loss for name, loss in names.items() if loss is not None}
    figure = PageFigure(
        "curves",
        "Validation loss during training",
        "All runs, the best ones in color. Runs that failed or were stopped end early.",
        lambda path: draw_curves(curves, losses, path),
    )
    return Section("curves", "Learning curves", figures=[figure])
