"""A corpus filtered by perplexity, as CCNet does it.

Wenzek et al. 2020, "CCNet: Extracting High Quality Monolingual Datasets from Web Crawl Data".
"""

from collections.abc import Iterable

import numpy as np

from torch_linguist.errors import ConfigError


def check_filter(below: float | None, share: float | None) -> None:
    """Refuse a threshold or a share out of its range.

    Raises:
        ConfigError: it is out of range, or both are given.
    """
    if below is not None and share is not None:
        raise ConfigError("--keep-below and --keep-share: give one of the two")
    if below is not None and not below > 0:
        raise ConfigError(f"--keep-below={below:g}: must be greater than 0")
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"--keep-share={share:g}: must be greater than 0 and at most 1")


def threshold_of_share(perplexities: Iterable[float], share: float) -> float:
    """The perplexity up to which a share of the texts lies; texts without tokens have none and are not kept.

    Args:
        perplexities: of all texts.
        share: greater than 0, at most 1.
    """
    found = np.fromiter(perplexities, np.float64)
    finite = np.sort(found[~np.isnan(found)])
    if not len(finite):
        return 0.0
    kept = min(len(finite), max(1, int(np.ceil(share * len(found)))))
    return float(finite[kept - 1])
