"""Filtering of a corpus by perplexity, as CCNet does it.

Wenzek et al. 2020, "CCNet: Extracting High Quality Monolingual Datasets from Web Crawl Data".
"""

import tempfile
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from torch_linguist.errors import ConfigError, LinguistError


@dataclass(frozen=True)
class Filtered:
    """Result of a filter.

    Attributes:
        kept: number of texts kept.
        total: number of texts.
        threshold: largest perplexity that is kept.
    """

    kept: int
    total: int
    threshold: float


def check_filter(below: float | None, share: float | None) -> None:
    """Check the options of `filter_texts`.

    Raises:
        ConfigError: one is out of its range, or both are given.
    """
    if below is not None and share is not None:
        raise ConfigError("--keep-below and --keep-share: give one of the two")
    if below is not None and not below > 0:
        raise ConfigError(f"--keep-below={below:g}: must be greater than 0")
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"--keep-share={share:g}: must be greater than 0 and at most 1")


def filter_texts(
    scored: Iterable[tuple[str, float]],
    write: Callable[[str], object],
    *,
    below: float | None = None,
    share: float | None = None,
) -> Filtered:
    """Write the texts with a low perplexity.

    Args:
        scored: texts without newlines, each with its perplexity; NaN for a text without tokens, which is not kept.
        write: called with each text that is kept.
        below: largest perplexity to keep.
        share: share of the texts to keep, those with the lowest perplexities. They wait in a temporary file until all
            are scored.

    Raises:
        LinguistError: the temporary file cannot be written.
    """
    check_filter(below, share)
    if share is None:
        threshold = np.inf if below is None else below
        return _write_kept(scored, write, threshold)
    perplexities = array("d")
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as waiting:
        for text, perplexity in scored:
            perplexities.append(perplexity)
            try:
                waiting.write(text + "\n")
            except OSError as error:
                raise LinguistError(
                    f"{tempfile.gettempdir()}: no room for the texts until all are scored ({error.strerror}); "
                    "make room, or set TMPDIR to another folder"
                ) from error
        waiting.seek(0)
        texts = (line.removesuffix("\n") for line in waiting)
        return _write_kept(zip(texts, perplexities, strict=True), write, threshold_of_share(perplexities, share))


def _write_kept(scored: Iterable[tuple[str, float]], write: Callable[[str], object], threshold: float) -> Filtered:
    kept = total = 0
    for text, perplexity in scored:
        total += 1
        if perplexity <= threshold:
            kept += 1
            write(text)
    return Filtered(kept, total, threshold)


def threshold_of_share(perplexities: Iterable[float], share: float) -> float:
    """Return the perplexity up to which a share of the texts lies; texts without a perplexity count as the highest."""
    found = np.fromiter(perplexities, np.float64)
    finite = np.sort(found[~np.isnan(found)])
    if not len(finite):
        return 0.0
    kept = min(len(finite), max(1, int(np.ceil(share * len(found)))))
    return float(finite[kept - 1])
