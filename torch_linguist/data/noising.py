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

_CHUNK = 2**24


class NoisyBatches:
    """Batches whose ids are noised anew each time; the noise depends on the seed and the position alone.

    So a training that is resumed meets the same noise. ``<eos>`` is never replaced.

    - Noising (Xie et al. 2017, "Data noising as smoothing in neural network language models"): each input is replaced
      with a probability. `blank`: always the same one, by ``<unk>`` (the paper has a token ``_`` of its own);
      `unigram`: likewise, by a draw from the unigram distribution; `kneser_ney`: with the probability
      rate * N1+(x, .) / c(x), higher where a word is followed by many different ones, by a draw in proportion to
      N1+(., x), the number of words that x follows; the target is replaced along with its input, as in the paper.
    - Word dropout (Gal & Ghahramani 2016): all occurrences of a word in a batch become ``<unk>`` in the input.

    Attributes:
        epoch: passes that are done, fractions included.

    Example:
        >>> batches = ContiguousBatches(corpus.train, batch_size=2, sequence_length=5)
        >>> noisy = NoisyBatches(batches, corpus, noise="blank", rate=0.5, word_dropout=0.0, seed=1)
        >>> bool((noisy.next().tokens == corpus.tokenizer.unk_id).any())
        True
    """

    def __init__(
        self, batches: Batches, corpus: TokenizedCorpus, noise: str | None, rate: float, word_dropout: float, seed: int
    ) -> None:
        """Wraps batches.

        Args:
            batches: of the training split.
            corpus: for the counts of its training split, and the ids of ``<eos>`` and ``<unk>``.
            noise: one of `NOISES`, or None.
            rate: probability of a replacement (of `kneser_ney`, what it is scaled by).
            word_dropout: probability of a word to be dropped from a batch.
            seed: of the noise.

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
        """Passes over the data that are done, fractions included."""
        return self.batches.epoch

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one pass."""
        return self.batches.batches_per_epoch

    @property
    def tokens_per_batch(self) -> int:
        """B * T."""
        return self.batches.tokens_per_batch

    def next(self) -> Batch:
        """The next batch, noised."""
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
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), batch.reset)

    def state_dict(self) -> dict[str, int]:
        """The position, in plain types."""
        return self.batches.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to a position."""
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
        """Ids in proportion to the proposal distribution."""
        positions = generator.random(count) * self._cumulative[-1]
        drawn: NDArray[np.int64] = np.searchsorted(self._cumulative, positions, side="right").astype(np.int64)
        return drawn


def check_noise(noise: str | None, rate: float, word_dropout: float) -> None:
    """Raises a DataError where a setting of the noise is out of its range.

    Example:
        >>> check_noise("unigram", rate=0.1, word_dropout=0.0)
    """
    if noise is not None and noise not in NOISES:
        raise DataError(f"trainer.noise={noise}: must be null or one of {', '.join(NOISES)}")
    for name, value in (("noise_rate", rate), ("word_dropout", word_dropout)):
        if not 0 <= value < 1:
            raise DataError(f"trainer.{name}={value}: must be at least 0 and less than 1")


def bigram_type_counts(stream: TokenStream, vocab_size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How many different tokens follow each token, and how many different ones it follows.

    Args:
        stream: of the training split, uint [N].
        vocab_size: V.

    Returns:
        N1+(x, .) and N1+(., x), both [V].
    """
    found = np.empty(0, np.int64)
    for begin in range(0, len(stream) - 1, _CHUNK):
        ids = np.asarray(stream.ids[begin : begin + _CHUNK + 1]).astype(np.int64)
        found = np.union1d(found, ids[:-1] * vocab_size + ids[1:])
    followers = np.bincount(found // vocab_size, minlength=vocab_size)
    predecessors = np.bincount(found % vocab_size, minlength=vocab_size)
    return followers, predecessors.astype(np.float64)
