"""The n-gram model: a language model that counts.

Shape legend: B batch, T time, V vocabulary, R rows of words, W words in a row, P = B * T, M[k] n-grams of order k.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from torch_linguist.errors import ConfigError
from torch_linguist.model.base import LanguageModel
from torch_linguist.model.ngram.counts import NGramCounts, WordArray, count_ngrams, word_bits
from torch_linguist.model.ngram.external import MEBIBYTE, MINIMUM_MIB, count_on_disk, counting_bytes
from torch_linguist.model.ngram.pruning import prune_entropy
from torch_linguist.model.ngram.smoothing import SMOOTHINGS, BackoffLevel, BackoffModel, smooth

MAX_ORDER = 8
_SORT_FROM = 1 << 13


class NGramLevel(nn.Module):
    """One order k >= 2: its n-grams as ascending int64 keys, their log-probabilities, the backoff of their contexts.

    Each buffer ends in one entry that belongs to no n-gram, so that a search always lands within them; the last backoff
    is 0, that of a context of -1.
    """

    keys: Tensor
    log_prob: Tensor
    log_backoff: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.full((1,), torch.iinfo(torch.int64).max))
        self.register_buffer("log_prob", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("log_backoff", torch.zeros(1, dtype=torch.float64))

    def assign(self, level: BackoffLevel) -> None:
        """Takes over estimated arrays."""
        self.keys = torch.from_numpy(np.append(level.keys, np.iinfo(np.int64).max))
        self.log_prob = torch.from_numpy(np.append(level.log_prob, 0.0))
        self.log_backoff = torch.from_numpy(np.append(level.log_backoff, 0.0))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # The sizes are those of the corpus, unknown to the constructor.
        for name, buffer in list(self.named_buffers(recurse=False)):
            stored = state_dict.get(prefix + name)
            if isinstance(stored, Tensor):
                setattr(self, name, torch.empty_like(buffer, device=buffer.device).resize_(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


class NGramModel(LanguageModel):
    """An n-gram model with the contract of the neural ones; it is fitted by counting instead of by gradients.

    Before `fit_counts` it is the uniform distribution. Its state is the last order - 1 words, one int64 tensor
    [order - 1, B], -1 where there was none yet. `forward` returns log-probabilities that add up to one (but for stupid
    backoff, which has no normalized scores), in float64 unless the module was cast.

    Args:
        vocab_size: V.
        order: words in the longest n-gram, 1 to 8.
        smoothing: ``kneser_ney`` (interpolated modified Kneser-Ney), ``witten_bell``, ``add_k`` or ``stupid_backoff``
            (scores that are not probabilities: its perplexity cannot be compared with that of the others).
        min_count: n-grams that occur less often are left out: one number for all orders from 2 up, or one an order from
            order 1 up, the last standing for all further orders. Words are never left out.
        add_k: what ``add_k`` adds to every count.
        backoff_factor: what ``stupid_backoff`` multiplies with for each word of context that it drops.
        entropy_threshold: n-grams whose loss raises the model's own perplexity by less than this share are removed
            after the estimation (Stolcke 1998); 0 keeps all.
        memory_limit_mib: where counting would take more, it works on disk, in the folder for temporary files, with the
            same result; the estimated model comes on top. None to count in memory.

    Raises:
        ConfigError: a value is out of its range.
    """

    is_counted = True
    unigrams: Tensor
    if TYPE_CHECKING:  # TorchScript reads annotations and knows none for a list of modules.
        levels: list[NGramLevel]

    def __init__(
        self,
        vocab_size: int,
        order: int = 5,
        smoothing: str = "kneser_ney",
        min_count: int | Sequence[int] = 1,
        add_k: float = 0.01,
        backoff_factor: float = 0.4,
        entropy_threshold: float = 0.0,
        memory_limit_mib: int | None = None,
    ) -> None:
        super().__init__()
        if vocab_size < 1:
            raise ConfigError(f"vocab_size={vocab_size} must be at least 1")
        if not 1 <= order <= MAX_ORDER:
            raise ConfigError(f"order={order} must be from 1 to {MAX_ORDER}")
        if smoothing not in SMOOTHINGS:
            raise ConfigError(f"smoothing={smoothing} is not known; choices: {', '.join(SMOOTHINGS)}")
        if not 0 < add_k < math.inf:
            raise ConfigError(f"add_k={add_k} must be greater than 0")
        if not 0 < backoff_factor <= 1:
            raise ConfigError(f"backoff_factor={backoff_factor} must be greater than 0 and at most 1")
        if not 0 <= entropy_threshold < math.inf:
            raise ConfigError(f"entropy_threshold={entropy_threshold} must be a number of at least 0")
        if entropy_threshold and smoothing == "stupid_backoff":
            raise ConfigError(
                f"entropy_threshold={entropy_threshold} needs probabilities, which stupid_backoff has not"
            )
        if memory_limit_mib is not None and memory_limit_mib < MINIMUM_MIB:
            raise ConfigError(f"memory_limit_mib={memory_limit_mib} must be at least {MINIMUM_MIB}, or null")
        self.vocab_size = vocab_size
        self.order = order
        self.history_length = order - 1
        self.smoothing = smoothing
        # The scores of stupid backoff are not probabilities.
        self.is_normalized = smoothing != "stupid_backoff"
        self.min_count = _min_counts(min_count, order)
        self.add_k = add_k
        self.backoff_factor = backoff_factor
        self.entropy_threshold = entropy_threshold
        self.memory_limit_mib = memory_limit_mib
        self.word_bits = word_bits(vocab_size)
        self.unseen_backoff = math.log(backoff_factor) if smoothing == "stupid_backoff" else 0.0
        self.register_buffer("unigrams", torch.full((vocab_size,), -math.log(vocab_size), dtype=torch.float64))
        self.levels = cast("list[NGramLevel]", nn.ModuleList(NGramLevel() for _ in range(order - 1)))
        if order > 1:
            self.levels[0].log_backoff = torch.zeros(vocab_size + 1, dtype=torch.float64)

    def fit_counts(self, ids: WordArray, eos_id: int) -> None:
        """Counts a stream and estimates the model from it.

        Args:
            ids: token ids [N], every newline the ordinary word <eos>; may be memory-mapped.
            eos_id: the word that the first token is predicted from.

        Raises:
            DataError: the stream is empty or does not fit the vocabulary.
        """
        limit = self.memory_limit_mib
        if limit is None or counting_bytes(len(ids), self.order) <= limit * MEBIBYTE:
            self._estimate(count_ngrams(ids, self.vocab_size, self.order, eos_id))
        else:
            with count_on_disk(ids, self.vocab_size, self.order, eos_id, limit) as counts:
                self._estimate(counts)

    def _estimate(self, counts: NGramCounts) -> None:
        model = smooth(counts, self.smoothing, self.min_count, add_k=self.add_k, backoff_factor=self.backoff_factor)
        if self.entropy_threshold:
            model = prune_entropy(model, self.entropy_threshold)
        self.assign(model)

    def assign(self, model: BackoffModel) -> None:
        """Takes over an estimated model of the same vocabulary and order."""
        if model.vocab_size != self.vocab_size or len(model.levels) != self.order - 1:
            raise ConfigError(
                f"vocab_size={self.vocab_size} and order={self.order} do not fit a model of {model.vocab_size} types "
                f"and order {len(model.levels) + 1}"
            )
        self.unigrams = torch.from_numpy(model.unigrams)
        self.unseen_backoff = model.unseen_backoff
        for level, estimated in zip(self.levels, model.levels, strict=True):
            level.assign(estimated)

    def backoff_model(self) -> BackoffModel:
        """The estimated model as arrays, float64."""
        levels = []
        for level in self.levels:
            keys, log_prob = level.keys[:-1].cpu().numpy(), level.log_prob[:-1].cpu().double().numpy()
            log_backoff = level.log_backoff[:-1].cpu().double().numpy()
            levels.append(BackoffLevel(keys, log_prob, log_backoff))
        unigrams = self.unigrams.cpu().double().numpy()
        return BackoffModel(self.vocab_size, self.word_bits, unigrams, tuple(levels), self.unseen_backoff)

    def ngram_counts(self) -> list[int]:
        """Number of distinct n-grams held, order 1 first.

        KenLM's figures for the same stream are higher by <s>, </s> and <unk> among the unigrams, and by the n-gram that
        begins with <s> and the one that ends in </s> at each other order.
        """
        return self.backoff_model().sizes()

    def num_parameters(self) -> int:
        """Number of n-grams of all orders that have a probability of their own."""
        return self.unigrams.numel() + sum(level.log_prob.numel() - 1 for level in self.levels)

    def initial_state(self, batch_size: int) -> list[Tensor]:
        """No word seen yet: one tensor [order - 1, B] of -1."""
        return [torch.full((self.order - 1, batch_size), -1, dtype=torch.int64, device=self.unigrams.device)]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Log-probabilities of every word after each token, [B, T, V], and the last order - 1 words."""
        history = torch.cat([state[0].t(), tokens], dim=1)
        logits = self._distributions(history)
        return logits.view(tokens.size(0), tokens.size(1), self.vocab_size), self._last_words(history)

    def nll(self, tokens: Tensor, targets: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Negative log-likelihood of the targets in nats, [B, T], and the last order - 1 words.

        Targets that are the tokens moved by one are scored as one sequence, each n-gram looked up once; any others one
        by one.
        """
        batch_size, time = tokens.size(0), tokens.size(1)
        history = torch.cat([state[0].t(), tokens], dim=1)
        new_state = self._last_words(history)
        if torch.equal(tokens[:, 1:], targets[:, :-1]):
            scores = self._scores(torch.cat([history, targets[:, -1:]], dim=1))
            return -scores[:, self.order :], new_state
        windows = history.unfold(1, self.order, 1).reshape(batch_size * time, self.order)
        scores = self._scores(torch.cat([windows, targets.reshape(batch_size * time, 1)], dim=1))
        return -scores[:, -1].view(batch_size, time), new_state

    def _last_words(self, history: Tensor) -> list[Tensor]:
        """The state after a history [B, W] of at least order - 1 words."""
        return [history[:, history.size(1) - self.order + 1 :].t().contiguous()]

    def _scores(self, words: Tensor) -> Tensor:
        """Log-probability of each word [R, W] after those before it in its row, meaningless for a -1."""
        # No n-gram holds a -1, so none runs on into the next row.
        flat = torch.cat([words, words.new_full((words.size(0), 1), -1)], dim=1).view(-1)
        scores = self.unigrams[flat.clamp(min=0)]
        # The n-grams of one order that were found: where they begin, and their index.
        begin = self._places(flat)
        index = flat[begin]
        for k, level in enumerate(self.levels):
            end = begin + (k + 1)
            query = (index << self.word_bits) | flat[end]
            place = torch.searchsorted(level.keys, query)
            found = level.keys[place] == query
            if self.unseen_backoff != 0.0:
                missing = self._enough_words(words, k + 1)
                missing[end] = False
                scores = torch.where(missing, scores + self.unseen_backoff, scores)
            backed_off = scores[end] + level.log_backoff[index]
            scores[end] = torch.where(found, level.log_prob[place], backed_off)
            kept = torch.nonzero(found).view(-1)
            begin, index = begin[kept], place[kept]
        return scores.view(words.size(0), words.size(1) + 1)[:, :-1]

    def _places(self, flat: Tensor) -> Tensor:
        """The places of a flat row of words that hold one, not a -1; of a long row in the order of the words.

        Queries in the order of the keys find those still in the processor's caches, twice as fast in all.
        """
        if not torch.jit.is_scripting() and flat.numel() >= _SORT_FROM and flat.device.type == "cpu":  # type: ignore[attr-defined]
            # Sixteen bits are as many as NumPy sorts by their digits.
            leading = (flat >> max(0, self.word_bits - 16)).numpy().astype(np.uint16)
            order = torch.from_numpy(np.argsort(leading, kind="stable"))
            return order[flat[order] >= 0]
        return torch.nonzero(flat >= 0).view(-1)

    def _enough_words(self, words: Tensor, length: int) -> Tensor:
        """Whether at least `length` words stand before each place of [R, W + 1], flat."""
        seen = torch.cumsum((words >= 0).to(torch.int64), dim=1)
        return torch.cat([torch.zeros_like(seen[:, :1]), seen], dim=1).view(-1) >= length

    def _contexts(self, history: Tensor) -> list[Tensor]:
        """Index of the k-gram that ends at each token, k = 1 up to order - 1.

        Args:
            history: the state's words and then the tokens, [B, order - 1 + T].

        Returns:
            For each k a tensor [P], P = B * T: -1 where that k-gram is not in the model.
        """
        first = self.order - 1
        contexts = [history[:, first:].reshape(-1)]
        ended = history
        for k, level in enumerate(self.levels):
            # The last level holds no contexts.
            if k < self.order - 2:
                # A -1 on either side gives a negative query, which equals no key.
                query = (ended[:, :-1] << self.word_bits) | history[:, 1:]
                place = torch.searchsorted(level.keys, query)
                index = torch.where(level.keys[place] == query, place, torch.full_like(place, -1))
                ended = torch.cat([torch.full_like(history[:, :1], -1), index], dim=1)
                contexts.append(ended[:, first:].reshape(-1))
        return contexts

    def _distributions(self, history: Tensor) -> Tensor:
        """Log-probabilities of all words after each token of a history [B, order - 1 + T]: [P, V], P = B * T."""
        if self.order == 1:
            return self.unigrams.expand(history.numel(), self.vocab_size).clone()
        contexts = self._contexts(history)
        # dropped[k]: log weight of giving up all contexts of more than k words.
        dropped = [torch.zeros_like(self.unigrams[:1]).expand(contexts[0].size(0))]
        backoffs: list[Tensor] = []
        for k, level in enumerate(self.levels):
            # A context of -1 takes the last entry, which is 0.
            backoff = level.log_backoff[contexts[k]]
            if self.unseen_backoff != 0.0:
                known = torch.cumsum((history >= 0).to(torch.int64), dim=1)[:, self.order - 1 :].reshape(-1)
                backoff = torch.where((contexts[k] < 0) & (known > k), backoff + self.unseen_backoff, backoff)
            backoffs.append(backoff)
        for k in range(len(backoffs) - 1, -1, -1):
            dropped.insert(0, dropped[0] + backoffs[k])
        logits = self.unigrams.unsqueeze(0) + dropped[0].unsqueeze(1)
        flat = logits.view(-1)
        for k, level in enumerate(self.levels):
            # Most longer contexts were never seen, and a step of a generation has just one.
            if bool((contexts[k] >= 0).any()):
                # The words seen after a context lie side by side; after one of -1 there are none.
                bounds = torch.stack([contexts[k], contexts[k] + 1]) << self.word_bits
                ends = torch.searchsorted(level.keys, bounds)
                lengths = ends[1] - ends[0]
                row = torch.repeat_interleave(lengths)
                before = torch.cumsum(lengths, dim=0) - lengths
                place = torch.arange(row.size(0), device=row.device) + (ends[0] - before)[row]
                word = level.keys[place] & ((1 << self.word_bits) - 1)
                flat[row * self.vocab_size + word] = level.log_prob[place] + dropped[k + 1][row]
        return logits


def _min_counts(min_count: int | Sequence[int], order: int) -> list[int]:
    """The least count of each order, order 1 first.

    Raises:
        ConfigError: the numbers are below 1, decrease, are too many, or would leave out words.
    """
    # One number leaves the words alone; a list names them.
    least = [1, min_count] if isinstance(min_count, int) else list(min_count)
    if not least or len(least) > max(order, 2) or least[0] != 1:
        raise ConfigError(
            f"min_count={min_count} must be one number, or a list of at most order={order} numbers that begins with 1 "
            "(words are never left out: use tokenizer.min_frequency)"
        )
    least = (least + [least[-1]] * order)[:order]
    if any(high < low for low, high in itertools.pairwise(least)) or least[0] < 1:
        raise ConfigError(f"min_count={min_count} must hold numbers of at least 1 that never decrease with the order")
    return least
