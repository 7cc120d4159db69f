"""The simplest baseline: every token by its frequency in the training split.

Shape legend: V vocabulary, N tokens.
"""

import numpy as np

from torch_linguist.data import TokenStream
from torch_linguist.evaluation.scoring import Score


def unigram_score(token_counts: np.ndarray, stream: TokenStream) -> Score:
    """Scores a stream by the unigram distribution, each count raised by one (Laplace) so that none is impossible.

    Args:
        token_counts: of the training split, integer [V].
        stream: one split.

    Returns:
        The score.
    """
    smoothed = token_counts.astype(np.float64) + 1
    log_probabilities = np.log(smoothed / smoothed.sum())
    occurrences = np.bincount(stream.ids, minlength=len(token_counts))
    return Score.of(float(-(occurrences * log_probabilities).sum()), stream)
