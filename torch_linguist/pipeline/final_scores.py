"""The end of a run: what the best model scores, and what it is held against."""

from typing import Any

from torch_linguist.data import TokenizedCorpus
from torch_linguist.evaluation import Score, ngram_baseline, score, unigram_score
from torch_linguist.evaluation.score_settings import ScoreSettings
from torch_linguist.model import LanguageModel

SPLITS = ("valid", "test")


def score_splits(model: LanguageModel, corpus: TokenizedCorpus, settings: ScoreSettings) -> dict[str, Score]:
    """The model's score of each split but the training's."""
    return {
        split: score(model, corpus.streams[split], chunk_length=settings.chunk_length, stride=settings.stride)
        for split in SPLITS
    }


def score_baselines(
    corpus: TokenizedCorpus, settings: ScoreSettings, model: LanguageModel
) -> dict[str, dict[str, Score]]:
    """Simple models of the same tokens: the unigram distribution, and an n-gram unless the model is one itself."""
    baselines: dict[str, dict[str, Score]] = {}
    order = settings.baseline_order
    if order and len(corpus.train) <= settings.baseline_tokens and not model.is_counted:
        baselines[f"{order}-gram"] = ngram_baseline(corpus, order, SPLITS)
    counts = corpus.token_counts()
    baselines["unigram"] = {split: unigram_score(counts, corpus.streams[split]) for split in SPLITS}
    return baselines


def hyperparameters(summary: dict[str, Any], model: LanguageModel) -> dict[str, str | int | float]:
    """What TensorBoard lists of a run: its choices, its rates, and the model's own arguments."""
    chosen = {key: summary[key] for key in ("model", "lr", "weight_decay", "seed")}
    return {key: value for key, value in {**chosen, **model.arguments}.items() if isinstance(value, str | int | float)}
