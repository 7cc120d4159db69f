"""Initialization from counts: output biases from token frequencies, the embedding from co-occurrences.

Which words are neighbors is known before the first update. A factorized co-occurrence matrix yields vectors that are
close for words with similar contexts (Levy & Goldberg 2014, "Neural word embedding as implicit matrix factorization"),
including rare words, which a short training sees too seldom to place.

Shape legend: V vocabulary, D embedding, N tokens, R rows (the most frequent tokens), C contexts, P pairs.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.data import TokenizedCorpus, Tokenizer
from torch_linguist.data.word_vectors import read_word_vectors
from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel
from torch_linguist.trainer.settings import TrainerSettings

MOST_TOKENS = 1 << 22
"""Largest number of tokens to count, from the start of the split."""

MOST_ROWS = 1 << 16
"""Largest number of tokens that get a vector, the most frequent ones."""

MOST_CONTEXTS = 20_000
"""Largest number of distinct neighbors, the most frequent ones."""

WINDOW = 5
"""Positions on each side that count as neighbors, weighted by the inverse of their distance."""

SMOOTHING = 0.75
"""Exponent of the context frequencies, which reduces the weight of rare contexts."""

LEAST_TOKENS = 100_000
"""Training tokens from which `cooccurrence_start=auto` is worth its time: fewer say little about rare words."""

ITERATIONS = 2
"""Power iterations of the randomized factorization."""


def uses_cooccurrences(model: LanguageModel, corpus: TokenizedCorpus, settings: TrainerSettings) -> bool:
    """Return whether the embedding starts from co-occurrences.

    `auto` does so for models with an embedding if the vocabulary is larger than the embedding size and the training
    split has at least 100,000 tokens.
    """
    if settings.cooccurrence_start != "auto":
        return bool(settings.cooccurrence_start)
    embedding = model.input_embedding
    large = embedding is not None and model.vocab_size > embedding.embedding_dim
    return large and len(corpus.train) >= LEAST_TOKENS


def start_from_counts(model: LanguageModel, corpus: TokenizedCorpus, settings: TrainerSettings) -> bool:
    """Initialize an untrained model from the counts of the training split, as far as the settings ask for it.

    Args:
        model: model to initialize, modified in place.
        corpus: token streams of the splits.
        settings: settings; `unigram_start` and `cooccurrence_start` matter.

    Returns:
        Whether the output biases now hold the token frequencies.

    Raises:
        ConfigError: the model has no embedding to initialize.
    """
    started = settings.unigram_start and model.start_at_unigram(torch.from_numpy(corpus.token_counts()))
    if not uses_cooccurrences(model, corpus, settings):
        return started
    embedding = model.input_embedding
    if embedding is None:
        raise ConfigError(
            f"trainer.cooccurrence_start=true: a {type(model).__name__} has no embedding; "
            "set trainer.cooccurrence_start=false"
        )
    model.start_embedding(cooccurrence_vectors(corpus.train.ids, model.vocab_size, embedding.embedding_dim))
    return started


@dataclass(frozen=True)
class WordVectors:
    """A file of word vectors for the embedding.

    Attributes:
        path: text file; see `read_word_vectors`.
        frozen: whether the embedding is not trained.
    """

    path: Path
    frozen: bool = False


def start_from_vectors(model: LanguageModel, tokenizer: Tokenizer, vectors: WordVectors) -> str:
    """Start the embedding of an untrained model from a file of word vectors.

    The vectors are scaled together, so that their mean length suits the model; tokens that are not in the file keep
    their random ones.

    Args:
        model: model to initialize, modified in place.
        tokenizer: tokenizer of the model.
        vectors: file of vectors.

    Returns:
        A sentence for the user: how many tokens were found.

    Raises:
        LinguistError: the model has no embedding, or the file does not fit it.
    """
    embedding = model.input_embedding
    if embedding is None:
        raise ConfigError(f"model.embedding_from={vectors.path}: a {type(model).__name__} has no embedding")
    rows, found = read_word_vectors(vectors.path, tokenizer.tokens, embedding.embedding_dim)
    if not found:
        raise ConfigError(f"model.embedding_from={vectors.path}: holds none of the {model.vocab_size:,} tokens")
    lengths = np.linalg.norm(rows, axis=1)
    model.start_embedding(torch.from_numpy(rows / lengths[lengths > 0].mean()))
    embedding.weight.requires_grad_(not vectors.frozen)
    kept = ", not trained" if vectors.frozen else ""
    return f"embedding from {vectors.path.name}: {found:,} of {len(rows):,} tokens found{kept}"


def cooccurrence_vectors(ids: NDArray[np.unsignedinteger], vocab_size: int, width: int, seed: int = 1) -> Tensor:
    """Compute token vectors of length one from the neighbors of each token.

    The matrix holds the positive pointwise mutual information of a token and its contexts; the same neighbor on the
    left and on the right counts as two contexts. Context frequencies are smoothed and vectors weighted by the square
    roots of the singular values (Levy, Goldberg & Dagan 2015, "Improving distributional similarity with lessons learned
    from word embeddings"), and rare pairs are discounted (Pantel & Lin 2002, "Discovering word senses from text").
    The factorization is randomized (Halko, Martinsson & Tropp 2011). A random rotation then spreads the information
    over all features, and each vector is scaled to length one.

    Args:
        ids: token ids [N].
        vocab_size: number of token types V.
        width: embedding size D.
        seed: random seed of the factorization and the rotation.

    Returns:
        Vectors, float32 [V, D]; zeros for tokens without information, such as those that do not occur.
    """
    tokens = torch.from_numpy(ids[:MOST_TOKENS].astype(np.int64))
    vectors = torch.zeros(vocab_size, width)
    matrix, id_of_row = _information(tokens, vocab_size)
    rank = min(width, *matrix.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        left, singular, _ = torch.svd_lowrank(matrix, min(rank + rank // 10 + 1, *matrix.shape), ITERATIONS)
        turn = torch.linalg.qr(torch.randn(width, width))[0]
    # Singular values below the rounding error of the largest one are noise.
    known = singular[:rank] > singular[0] * 1e-6
    features = left[:, :rank] * (singular[:rank] * known).sqrt()
    vectors[id_of_row] = _of_length_one(features) @ turn[:rank]
    return vectors


def _of_length_one(features: Tensor) -> Tensor:
    """Scale rows [R, D] to length one; rows that consist of rounding errors become zeros."""
    lengths = features.norm(dim=1, keepdim=True)
    return torch.where(lengths > 1e-6 * lengths.max(), features / lengths, 0.0)


def _information(tokens: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Return the sparse matrix [R, 2 * C] and the token of each row [R]."""
    counts = torch.bincount(tokens, minlength=vocab_size)
    order = torch.argsort(counts, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(vocab_size)
    ranks = rank[tokens]
    rows, contexts = min(vocab_size, MOST_ROWS), min(vocab_size, MOST_CONTEXTS)
    parts = []
    for side in range(2):
        row, context, weight = _pairs(ranks if side == 0 else ranks.flip(0), rows, contexts)
        values = _discounted_information(row, context, weight, rows, contexts)
        kept = values > 0
        parts.append((row[kept], context[kept] + side * contexts, values[kept]))
    row, context, values = (torch.cat(column) for column in zip(*parts, strict=True))
    places, shape = torch.stack([row, context]), (rows, 2 * contexts)
    with warnings.catch_warnings():
        # torch warns that CSR is in beta; products with it are several times faster. Torch 2.11 on CUDA also warns of
        # what `check_invariants` says.
        warnings.filterwarnings("ignore", "Sparse (CSR|invariant)", UserWarning)
        matrix = torch.sparse_coo_tensor(places, values, shape, check_invariants=False).coalesce()
        return matrix.to_sparse_csr(), order[:rows]


def _pairs(ranks: Tensor, rows: int, contexts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return each pair of a token and a later neighbor once: row [P], context [P], weight [P]."""
    keys, weights = [], []
    for distance in range(1, WINDOW + 1):
        row, context = ranks[:-distance], ranks[distance:]
        kept = (row < rows) & (context < contexts)
        keys.append(row[kept] * contexts + context[kept])
        weights.append(torch.full((len(keys[-1]),), 1 / distance))
    pairs, position = torch.unique(torch.cat(keys), return_inverse=True)
    weight = torch.zeros(len(pairs)).index_add_(0, position, torch.cat(weights))
    return pairs // contexts, pairs % contexts, weight


def _discounted_information(row: Tensor, context: Tensor, weight: Tensor, rows: int, contexts: int) -> Tensor:
    """Return the pointwise mutual information [P] in nats, discounted for pairs with few observations."""
    of_row = torch.zeros(rows).index_add_(0, row, weight)
    of_context = torch.zeros(contexts).index_add_(0, context, weight)
    smoothed = of_context**SMOOTHING
    information = (weight / of_row[row]).log() - (smoothed / smoothed.sum())[context].log()
    rarer = torch.minimum(of_row[row], of_context[context])
    return information * (weight / (weight + 1)) * (rarer / (rarer + 1))
