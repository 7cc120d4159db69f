"""How much each swept key matters: the share of the losses' variance that its values explain by themselves."""

import numpy as np
import pandas as pd

BINS = 4
"""Into how many parts of equally many runs a key with more values is cut."""


def importance(values: pd.DataFrame, losses: pd.Series) -> pd.Series:
    """The main effect of each key as a share of the variance of the losses, corrected for chance.

    One-way analysis of variance by key, with Kelley's epsilon squared: (SSB - (k - 1) MSW) / SST, at least 0. It sees
    a key's effect alone, not what keys do together; where all of a key's values differ in nothing, it is 0.

    Args:
        values: a column a key, a row a run; numbers where all values of a key are numbers.
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
    spare = len(losses) - len(members)
    # A single run of every value leaves nothing to tell chance by.
    chance = within / spare if spare else 0.0
    return max(0.0, (total - within - (len(members) - 1) * chance) / total)
