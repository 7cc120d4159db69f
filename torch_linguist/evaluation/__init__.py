"""Scores of models on token streams, baselines and mixtures."""

from torch_linguist.evaluation.baseline_comparison import BaselineComparison, compare_with_baselines
from torch_linguist.evaluation.baselines import ngram_baseline, unigram_score
from torch_linguist.evaluation.mixture_scoring import MixtureScore, score_mixture
from torch_linguist.evaluation.scoring import Score, mean_nll, score, stream_nll

__all__ = [
    "BaselineComparison",
    "MixtureScore",
    "Score",
    "compare_with_baselines",
    "mean_nll",
    "ngram_baseline",
    "score",
    "score_mixture",
    "stream_nll",
    "unigram_score",
]
