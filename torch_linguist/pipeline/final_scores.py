"""Final scores of a run: the best model beside its baselines."""

from typing import Any

from torch_linguist.data import TokenizedCorpus
from torch_linguist.evaluation import BaselineComparison, compare_with_baselines
from torch_linguist.evaluation.score_settings import ScoreSettings
from torch_linguist.model import LanguageModel


def final_comparison(
    model: LanguageModel, corpus: TokenizedCorpus, settings: ScoreSettings, precision: str, name: str, baselines: bool
) -> BaselineComparison:
    """Score the best model on valid and test, and compare it with its baselines.

    The n-gram baseline is left out for models that are counted themselves, and for large training splits.

    Args:
        model: the best model.
        corpus: token streams.
        settings: how to score.
        precision: precision of the matrix products, `fp32` or `bf16`.
        name: name of the model.
        baselines: whether to score baselines at all.
    """
    with_ngram = len(corpus.train) <= settings.baseline_tokens and not model.is_counted
    return compare_with_baselines(
        model,
        corpus,
        name=name,
        order=settings.baseline_order if with_ngram else None,
        baselines=baselines,
        chunk_length=settings.chunk_length,
        stride=settings.stride,
        precision=precision,
    )


def hyperparameters(summary: dict[str, Any], model: LanguageModel) -> dict[str, str | int | float]:
    """Return the hyperparameters that TensorBoard lists: choices, rates, and the arguments of the model."""
    chosen = {key: summary[key] for key in ("model", "lr", "weight_decay", "seed")}
    return {key: value for key, value in {**chosen, **model.arguments}.items() if isinstance(value, str | int | float)}
