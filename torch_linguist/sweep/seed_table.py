"""Several seeds of every point: mean, standard deviation and count."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from torch_linguist.runs.files import whole_file
from torch_linguist.sweep.outcomes import FINISHED, Outcome

MEASURES = ("valid_loss", "valid_perplexity", "test_perplexity")


def seed_table(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """A row a point, the best mean validation loss first.

    Args:
        outcomes: of all runs that ended.

    Returns:
        The swept keys without the seed, `count` (of finished runs), `failed`, and of each measure `_mean` and `_std`
        (of the sample: divided by count - 1; empty for a single run).
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
    """Writes `seed_table` as CSV.

    Args:
        outcomes: of all runs that ended.
        path: of the file.
    """
    table = seed_table(outcomes)
    with whole_file(path) as temporary:
        table.drop(columns="point").to_csv(temporary, index=False)
    return table
