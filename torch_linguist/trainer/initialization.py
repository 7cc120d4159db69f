"""What a model is told of its corpus before the first update."""

import torch

from torch_linguist.data import TokenizedCorpus
from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel
from torch_linguist.trainer.cooccurrence import cooccurrence_vectors
from torch_linguist.trainer.settings import TrainerSettings

LEAST_TOKENS = 100_000
"""Training tokens from which `cooccurrence_start=auto` is worth its time: fewer say little about rare words."""


def uses_cooccurrences(model: LanguageModel, corpus: TokenizedCorpus, settings: TrainerSettings) -> bool:
    """Whether the embedding starts from co-occurrences.

    `auto` does so for models with an embedding, where the vocabulary is larger than the embedding is wide and the
    training split has at least 100,000 tokens.
    """
    if settings.cooccurrence_start != "auto":
        return bool(settings.cooccurrence_start)
    embedding = model.input_embedding
    large = embedding is not None and model.vocab_size > embedding.embedding_dim
    return large and len(corpus.train) >= LEAST_TOKENS


def start_from_counts(model: LanguageModel, corpus: TokenizedCorpus, settings: TrainerSettings) -> None:
    """Gives an untrained model the starts that the settings name, from the training split.

    Args:
        model: changed in place.
        corpus: the token streams.
        settings: `unigram_start` and `cooccurrence_start`.

    Raises:
        ConfigError: the model has no embedding to start.
    """
    if settings.unigram_start:
        model.start_at_unigram(torch.from_numpy(corpus.token_counts()))
    if not uses_cooccurrences(model, corpus, settings):
        return
    embedding = model.input_embedding
    if embedding is None:
        raise ConfigError(
            f"trainer.cooccurrence_start=true: a {type(model).__name__} has no embedding; "
            "set trainer.cooccurrence_start=false"
        )
    model.start_embedding(cooccurrence_vectors(corpus.train.ids, model.vocab_size, embedding.embedding_dim))


__all__ = ["start_from_counts", "uses_cooccurrences"]
