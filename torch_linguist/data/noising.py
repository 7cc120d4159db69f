"""Noise on the ids of training batches: word dropout, blank, unigram and Kneser-Ney noising; never in evaluation.

Shape legend: B batch, T time, V vocabulary, N tokens of the training split.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torch_linguist.data.batches import Batch, Batches
from torch_linguist.data.stream import TokenizedCorpus, TokenStream
from torch_linguist.errors import DataError

NOISES = ("blank", "unigram", "kneser_ney")

CHUNK = 2**24
"""Number of tokens whose bigrams are counted at a time."""


class NoisyBatches:
    """Batches with random noise on their ids, never on ``<eos>``.

    The noise depends only on the seed and the position, so that a resumed training sees the same noise.

    - Noising (Xie et al. 2017, "Data noising as smoothing in neural network language models"): each input is replaced
      with some probability. `blank`: with probability `rate`, by ``<unk>`` (the paper uses a separate token
      ``_``). `unigram`: with probability `rate`, by a draw from the unigram distribution. `kneser_ney`: with
      probability rate * N1+(x, .) / c(x), which is higher for words with many different successors, by a draw
      proportional to N1+(., x), the number of different predecessors; the target is replaced as well, as in the paper.
    - Word dropout (Gal & Ghahramani 2016): all occurrences of a word in a batch become ``<unk>`` in the input.

    Attributes:
        epoch: number of completed passes, fractions included.

    Example:
        >>> batches = ContiguousBatches(corpus.train, batch_size=2, sequence_length=5)
        >>> noisy = NoisyBatches(batches, corpus, noise="blank", rate=0.5, word_dropout=0.0, seed=1)
        >>> bool((noisy.next().tokens == corpus.tokenizer.unk_id).any())
        True
    """

    def __init__(
        self, batches: Batches, corpus: TokenizedCorpus, noise: str | None, rate: float, word_dropout: float, seed: int
    ) -> None:
        """Wrap batches.

        Args:
            batches: batches of the training split.
            corpus: corpus with the token counts and the ids of ``<eos>`` and ``<unk>``.
            noise: one of `NOISES`; None for no replacement.
            rate: probability of a replacement; for `kneser_ney`, its scale.
            word_dropout: probability that a word is dropped from a batch.
            seed: random seed of the noise.

        Raises:
            DataError: a value is out of its range.
        """
        check_noise(noise, rate, word_dropout)
        self.batches = batches
        self._noise, self._word_dropout, self._seed = noise, word_dropout, seed
        self._eos_id, self._unk_id = corpus.tokenizer.eos_id, corpus.tokenizer.unk_id
        vocab_size = corpus.tokenizer.vocab_size
        self._rates = np.full(vocab_size, rate)
        self._proposal = np.zeros(vocab_size)
        if noise == "unigram":
            self._proposal = corpus.token_counts().astype(np.float64)
        elif noise == "kneser_ney":
            followers, self._proposal = bigram_type_counts(corpus.train, vocab_size)
            self._rates = np.minimum(1.0, rate * followers / np.maximum(corpus.token_counts(), 1))
        self._rates[self._eos_id] = 0.0
        self._proposal[self._eos_id] = 0.0
        self._cumulative = np.cumsum(self._proposal)

    @property
    def epoch(self) -> float:
        """Number of completed passes over the data, fractions included."""
        return self.batches.epoch

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches per pass."""
        return self.batches.batches_per_epoch

    @property
    def tokens_per_batch(self) -> int:
        """Number of tokens per batch, B * T."""
        return self.batches.tokens_per_batch

    def next(self) -> Batch:
        """Return the next batch with noise."""
        state = self.batches.state_dict()
        generator = np.random.default_rng([self._seed, 1, state["pass"], state["batch"]])
        batch = self.batches.next()
        tokens, targets = batch.tokens.numpy(), batch.targets.numpy()
        if self._noise is not None:
            self._replace(tokens, targets, generator)
        if self._word_dropout:
            dropped = generator.random(len(self._rates)) < self._word_dropout
            dropped[self._eos_id] = False
            tokens[dropped[tokens]] = self._unk_id
        return batch._replace(tokens=torch.from_numpy(tokens), targets=torch.from_numpy(targets))

    def state_dict(self) -> dict[str, int]:
        """Return the position as plain numbers."""
        return self.batches.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved position."""
        self.batches.load_state_dict(state)

    def _replace(self, tokens: NDArray[np.int64], targets: NDArray[np.int64], generator: np.random.Generator) -> None:
        chosen = generator.random(tokens.shape) < self._rates[tokens]
        if self._noise == "blank":
            tokens[chosen] = self._unk_id
            return
        if self._noise == "kneser_ney":
            with_target = chosen & (targets != self._eos_id)
            targets[with_target] = self._draw(int(with_target.sum()), generator)
        tokens[chosen] = self._draw(int(chosen.sum()), generator)

    def _draw(self, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw ids from the proposal distribution."""
        positions = generator.random(count) * self._cumulative[-1]
        drawn: NDArray[np.int64] = np.searchsorted(self._cumulative, positions, side="right").astype(np.int64)
        return drawn


def check_noise(noise: str | None, rate: float, word_dropout: float) -> None:
    """Raise a DataError if a setting of the noise is out of range.

    Example:
        >>> check_noise("unigram", rate=0.1, word_dropout=0.0)
    """
    if noise is not None and noise not in NOISES:
        raise DataError(f"trainer.noise={noise}: must be null or one of {', '.join(NOISES)}")
    for name, value in (("noise_rate", rate), ("word_dropout", word_dropout)):
        if not 0 <= value < 1:
            raise DataError(f"trainer.{name}={value}: must be at least 0 and less than 1")


def bigram_type_counts(stream: TokenStream, vocab_size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count the different successors and the different predecessors of each token.

    Args:
        stream: training split, uint [N].
        vocab_size: size of the vocabulary V.

    Returns:
        N1+(x, .) and N1+(., x), both [V].
    """
    found = np.empty(0, np.int64)
    for begin in range(0, len(stream) - 1, CHUNK):
        ids = np.asarray(stream.ids[begin : begin + CHUNK + 1]).astype(np.int64)
        found = np.union1d(found, ids[:-1] * vocab_size + ids[1:])
    followers = np.bincount(found // vocab_size, minlength=vocab_size)
    predecessors = np.bincount(found % vocab_size, minlength=vocab_size)
    return followers, predecessors.astype(np.float64)
