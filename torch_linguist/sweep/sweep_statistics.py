"""Statistics over the runs of a sweep: means over seeds, and how much each swept key matters."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from torch_linguist.runs.files import whole_file
from torch_linguist.sweep.outcomes import FINISHED, Outcome

MEASURES = ("valid_loss", "valid_perplexity", "test_perplexity")

BINS = 4
"""Number of equally populated groups into which a key with many numbers is divided."""


def seed_table(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return one row per point, the best mean validation loss first.

    Returns:
        The columns `point`, the swept keys except the seed, `count` (finished runs), `failed`, and for each measure
        `_mean` and `_std` (sample standard deviation, divided by count - 1; empty for a single run).
    """
    rows = []
    for outcome in outcomes:
        values = {key: value for key, value in outcome.run.swept.items() if key != "seed"}
        finished = outcome.status == FINISHED
        measured = {name: outcome.results[name] if finished else None for name in MEASURES}
        rows.append({"point": outcome.run.point, **values, **measured, "finished": finished})
    frame = pd.DataFrame(rows)
    keys = [name for name in frame.columns if name not in (*MEASURES, "finished")]
    frame[list(MEASURES)] = frame[list(MEASURES)].astype(float)
    points = frame.groupby(keys, sort=False, dropna=False)
    table = points["finished"].agg(count="sum", failed=lambda flags: int((~flags).sum()))
    for name in MEASURES:
        table[f"{name}_mean"] = points[name].mean()
        table[f"{name}_std"] = points[name].std()
    return table.reset_index().sort_values("valid_loss_mean", ignore_index=True)


def write_seed_table(outcomes: Sequence[Outcome], path: Path) -> pd.DataFrame:
    """Write `seed_table` as CSV and return it."""
    table = seed_table(outcomes)
    with whole_file(path) as temporary:
        table.drop(columns="point").to_csv(temporary, index=False)
    return table


def importance(values: pd.DataFrame, losses: pd.Series) -> pd.Series:
    """Return the main effect of each key as a share of the variance of the losses, corrected for chance.

    This is a one-way analysis of variance per key with Kelley's epsilon squared, (SSB - (k - 1) MSW) / SST, at least
    0. It measures the effect of single keys, not their interactions.

    Args:
        values: one column per key, one row per run; numeric where all values of a key are numbers.
        losses: validation loss of each run, finite.

    Returns:
        Key to share, the largest first.
    """
    shares = {str(key): _share(_groups(values[key]), losses.to_numpy(dtype=float)) for key in values}
    return pd.Series(shares, dtype=float).sort_values(ascending=False, kind="stable")


def _groups(column: pd.Series) -> np.ndarray:
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > 2 * BINS:
        return pd.qcut(column.rank(method="first"), BINS, labels=False).to_numpy()
    return pd.factorize(column)[0]


def _share(groups: np.ndarray, losses: np.ndarray) -> float:
    total = float(((losses - losses.mean()) ** 2).sum())
    members = [losses[groups == group] for group in np.unique(groups)]
    if total == 0 or len(members) < 2:
        return 0.0
    within = sum(float(((one - one.mean()) ** 2).sum()) for one in members)
    degrees = len(losses) - len(members)
    # With one run per value there is no estimate of chance.
    chance = within / degrees if degrees else 0.0
    return max(0.0, (total - within - (len(members) - 1) * chance) / total)
