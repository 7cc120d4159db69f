"""Word vectors from counts: what the embedding of a training may begin with instead of random numbers.

Which words stand next to which is known before the first update. A matrix of it, factorized, gives vectors that are
near each other where words are used alike (Levy & Goldberg 2014, "Neural word embedding as implicit matrix
factorization"), those of rare words too, which a short training meets too seldom to place them.

Shape legend: V vocabulary, D embedding, N tokens, R rows (the most frequent tokens), C contexts, P pairs.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_TOKENS = 1 << 22
"""Tokens that are counted, from the start of the split."""

MOST_ROWS = 1 << 16
"""Tokens that get a vector, the most frequent ones."""

MOST_CONTEXTS = 20_000
"""Neighbors that are told apart, the most frequent ones."""

WINDOW = 5
"""Places to the left and to the right that count, the far ones less: one over their distance."""

SMOOTHING = 0.75
"""Power of the contexts' frequencies: rare contexts say less than they seem to."""

ITERATIONS = 2
"""Of the factorization, which is a randomized one."""


def cooccurrence_vectors(ids: NDArray[np.unsignedinteger], vocab_size: int, width: int, seed: int = 1) -> Tensor:
    """Vectors of the tokens, each of length one, from their neighbors.

    The matrix holds the positive pointwise mutual information of a token and its contexts, where the same neighbor on
    the left and on the right is two contexts; frequencies of contexts are smoothed and vectors weighted by the square
    roots of the singular values (Levy, Goldberg & Dagan 2015, "Improving distributional similarity with lessons learned
    from word embeddings"), rare pairs are discounted (Pantel & Lin 2002, "Discovering word senses from text").
    It is factorized by a randomized method (Halko, Martinsson & Tropp 2011). The vectors are then turned at
    random, for which no feature is special, and brought to the same length.

    Args:
        ids: token ids [N].
        vocab_size: V.
        width: D.
        seed: of the factorization and of the turn.

    Returns:
        float32 [V, D]; zeros for tokens of which nothing is known, such as those that do not occur.
    """
    tokens = torch.from_numpy(ids[:MOST_TOKENS].astype(np.int64))
    vectors = torch.zeros(vocab_size, width)
    matrix, id_of_row = _information(tokens, vocab_size)
    rank = min(width, *matrix.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        left, singular, _ = torch.svd_lowrank(matrix, min(rank + rank // 10 + 1, *matrix.shape), ITERATIONS)
        turn = torch.linalg.qr(torch.randn(width, width))[0]
    # Below the rounding of the largest, singular values and their vectors are noise.
    known = singular[:rank] > singular[0] * 1e-6
    features = left[:, :rank] * (singular[:rank] * known).sqrt()
    vectors[id_of_row] = _of_length_one(features) @ turn[:rank]
    return vectors


def _of_length_one(features: Tensor) -> Tensor:
    """Rows [R, D] divided by their lengths; those that are nothing but rounding become zeros."""
    lengths = features.norm(dim=1, keepdim=True)
    return torch.where(lengths > 1e-6 * lengths.max(), features / lengths, 0.0)


def _information(tokens: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """The sparse matrix [R, 2 * C], and which token each row is of [R]."""
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
    matrix = torch.sparse_coo_tensor(places, values, shape, check_invariants=False).coalesce()
    with warnings.catch_warnings():
        # torch calls its row-wise format a beta; the products with it are several times faster.
        warnings.filterwarnings("ignore", "Sparse CSR", UserWarning)
        return matrix.to_sparse_csr(), order[:rows]


def _pairs(ranks: Tensor, rows: int, contexts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each pair of a token and a later one once: row [P], context [P], weight [P]."""
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
    """Pointwise mutual information [P] in nats, the lower the less is known of a pair."""
    of_row = torch.zeros(rows).index_add_(0, row, weight)
    of_context = torch.zeros(contexts).index_add_(0, context, weight)
    smoothed = of_context**SMOOTHING
    information = (weight / of_row[row]).log() - (smoothed / smoothed.sum())[context].log()
    rarer = torch.minimum(of_row[row], of_context[context])
    return information * (weight / (weight + 1)) * (rarer / (rarer + 1))


__all__ = ["cooccurrence_vectors"]
