"""Scoring of streams, and what a score is held against."""

from torch_linguist.evaluation.baseline import ngram_baseline
from torch_linguist.evaluation.mixture_scoring import MixtureScore, score_mixture
from torch_linguist.evaluation.scoring import Score, mean_nll, score, stream_nll
from torch_linguist.evaluation.unigram import unigram_score

__all__ = [
    "MixtureScore",
    "Score",
    "mean_nll",
    "ngram_baseline",
    "score",
    "score_mixture",
    "stream_nll",
    "unigram_score",
]
