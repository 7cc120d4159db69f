"""Predictions after explicit contexts, the basis of sensitivity and attribution.

Shape legend: B contexts, T tokens of each, V vocabulary, N tokens of a stream.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.data import TokenStream
from torch_linguist.errors import LinguistError
from torch_linguist.model import LanguageModel, State, device_of, evaluating

Ids = NDArray[np.int64]

BATCH_TOKENS = 8192
"""Tokens of contexts per batch."""

DISTRIBUTIONS = 128
"""Distributions over the vocabulary per batch."""


@dataclass(frozen=True, eq=False)
class ContextSample:
    """Positions of a stream with their contexts.

    Attributes:
        positions: positions of the targets in the stream, ascending [B].
        contexts: tokens before each target, the nearest last, int64 [B, T].
        targets: target ids [B].

    Example:
        >>> len(ContextSample(np.array([3]), np.array([[0, 1]]), np.array([2])))
        1
    """

    positions: Ids
    contexts: Ids
    targets: Ids

    def __len__(self) -> int:
        return len(self.positions)


def sample_contexts(stream: TokenStream, count: int, width: int, seed: int) -> ContextSample:
    """Draw positions with at least `width` tokens before them, counting the `<eos>` before the stream.

    Args:
        stream: one split.
        count: number of positions; a short stream may have fewer.
        width: length T of the contexts.
        seed: random seed.

    Raises:
        LinguistError: no position has a context of this length.

    Example:
        >>> sample_contexts(corpus.train, count=5, width=4, seed=1).contexts.shape
        (5, 4)
    """
    if not 1 <= width <= len(stream):
        raise LinguistError(f"{stream.split}: a context of {width} tokens does not fit its {len(stream)}")
    candidates = len(stream) - width + 1
    chosen = np.random.default_rng(seed).choice(candidates, min(count, candidates), replace=False)
    positions = np.sort(chosen).astype(np.int64) + width - 1
    return ContextSample(positions, *contexts_at(stream, positions, width))


def contexts_at(stream: TokenStream, positions: Ids, width: int) -> tuple[Ids, Ids]:
    """Return the tokens before given positions [B, T], and the tokens at the positions [B].

    Example:
        >>> contexts, targets = contexts_at(corpus.test, np.array([1]), width=2)
        >>> [corpus.tokenizer.tokens[index] for index in [*contexts[0], *targets]]
        ['<eos>', 'the', 'cat']
    """
    ids = np.concatenate([[stream.eos_id], np.asarray(stream.ids)]).astype(np.int64)
    assert positions.min() >= width - 1
    rows = positions[:, None] + np.arange(1 - width, 1)[None, :]
    return ids[rows], ids[positions + 1]


def state_after(model: LanguageModel, tokens: Tensor) -> State:
    """Return the state after tokens [B, T], without computing the output layer where the model allows it.

    Example:
        >>> network = GRU(20, embedding_dim=4, hidden_size=8)
        >>> [list(part.shape) for part in state_after(network, torch.zeros(2, 3, dtype=torch.int64))]
        [[1, 2, 8]]
    """
    state = model.initial_state(len(tokens))
    if tokens.shape[1] == 0:
        return state
    if model.has_hidden:
        return model.hidden(tokens, state)[1]
    return model.nll(tokens, torch.cat([tokens[:, 1:], tokens[:, -1:]], dim=1), state)[1]


@torch.inference_mode()
def target_nll(model: LanguageModel, contexts: Ids, targets: Ids) -> NDArray[np.float64]:
    """Return the nats of each target [B] after its context [B, T], read from the initial state.

    Example:
        >>> probes = sample_contexts(corpus.train, count=5, width=4, seed=1)
        >>> target_nll(model, probes.contexts, probes.targets).shape
        (5,)
    """
    rows = max(1, BATCH_TOKENS // contexts.shape[1])
    device = device_of(model)
    found = []
    with evaluating(model):
        for begin in range(0, len(contexts), rows):
            tokens = torch.from_numpy(contexts[begin : begin + rows]).to(device)
            wanted = torch.from_numpy(targets[begin : begin + rows]).to(device)
            nll, _ = model.nll(tokens[:, -1:], wanted[:, None], state_after(model, tokens[:, :-1]))
            found.append(nll[:, 0].double().cpu().numpy())
    return np.concatenate(found)


@torch.inference_mode()
def next_log_probabilities(model: LanguageModel, contexts: Ids) -> Iterator[Tensor]:
    """Predict the next token after contexts [B, T], a few at a time.

    Yields:
        Log-probabilities, float64 [some, V], on the CPU.

    Example:
        >>> probes = sample_contexts(corpus.train, count=5, width=4, seed=1)
        >>> (found,) = next_log_probabilities(model, probes.contexts)
        >>> torch.allclose(found.exp().sum(-1), torch.ones(5, dtype=torch.float64))
        True
    """
    rows = max(1, min(DISTRIBUTIONS, BATCH_TOKENS // contexts.shape[1]))
    device = device_of(model)
    with evaluating(model):
        for begin in range(0, len(contexts), rows):
            tokens = torch.from_numpy(contexts[begin : begin + rows]).to(device)
            logits, _ = model(tokens[:, -1:], state_after(model, tokens[:, :-1]))
            yield torch.log_softmax(logits[:, 0].double(), dim=-1).cpu()
