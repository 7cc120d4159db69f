"""Sensitivity to the context: how predictions change when it is shortened, damaged, or changed by one word.

Based on Khandelwal et al. 2018, "Sharp nearby, fuzzy far away: how neural language models use context". Differences:
the model always reads the context from its initial state, so that it remembers nothing of the stream before; each
position is measured under every change, so that all comparisons are paired; and misspellings are our addition.

Shape legend: B contexts, T tokens of each, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.interpretation.contexts import ContextSample, Ids, next_log_probabilities, target_nll
from torch_linguist.evaluation.scoring import exp
from torch_linguist.evaluation.words import find_words, piece_texts
from torch_linguist.model import LanguageModel

LONGEST = 512
SHARES = (0.05, 0.1, 0.2, 0.5)
"""Shares of the context to damage."""

SHOWN = 16
"""Last tokens of the context shown in a table."""

Floats = NDArray[np.float64]


def context_lengths(longest: int) -> list[int]:
    """Return 1, 2, 4, 8, ... up to and including `longest`.

    Example:
        >>> context_lengths(12)
        [1, 2, 4, 8, 12]
    """
    return sorted({1 << power for power in range(longest.bit_length())} | {longest})


def context_curve(model: LanguageModel, probes: ContextSample, as_scored: Floats) -> pd.DataFrame:
    """Measure the loss against the length of the context.

    Args:
        model: any model.
        probes: positions with the longest context.
        as_scored: nats of the same targets when the whole stream is scored [B].

    Returns:
        One row per length: `context`, `loss`, `perplexity`, and `above`, the difference from the loss as scored, with
        its 95% interval `low`, `high` (normal, over the positions). The last row, with context 0, is the score itself.

    Example:
        >>> probes = sample_contexts(corpus.train, count=20, width=4, seed=1)
        >>> as_scored = target_nll(model, probes.contexts, probes.targets)
        >>> context_curve(model, probes, as_scored)["context"].tolist()
        [1, 2, 4, 0]
    """
    rows = []
    for length in context_lengths(probes.contexts.shape[1]):
        nll = target_nll(model, probes.contexts[:, -length:], probes.targets)
        rows.append({"context": length, **_summary(nll), **_against(nll, as_scored, "above")})
    rows.append({"context": 0, **_summary(as_scored), **_against(as_scored, as_scored, "above")})
    return pd.DataFrame(rows)


def _summary(nll: Floats) -> dict[str, float]:
    loss = float(nll.mean())
    return {"loss": loss, "perplexity": exp(loss)}


def _against(nll: Floats, reference: Floats, name: str) -> dict[str, float]:
    """Return the mean difference and its interval over the positions."""
    differences = nll - reference
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
    return {name: mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error}


def damage_table(
    model: LanguageModel, tokenizer: Tokenizer, probes: ContextSample, width: int, seed: int
) -> pd.DataFrame:
    """Measure the loss with damaged contexts.

    Args:
        model: any model.
        tokenizer: tokenizer of the ids.
        probes: positions. Their contexts should be wider than `width`: misspelling can shorten a context, which is
            then filled up from the left.
        width: length of the context, in tokens.
        seed: random seed.

    Returns:
        One row per damage: `change` (`none`, `shuffle`, `drop`, `swap`, `misspell`), `amount` (for a shuffle the
        distance beyond which tokens are shuffled, else the share of the context), `loss`, `perplexity`, and `increase`
        over the undamaged context with its 95% interval `low`, `high` (normal, over the positions).

    Example:
        >>> probes = sample_contexts(corpus.train, count=20, width=8, seed=1)
        >>> damage_table(model, corpus.tokenizer, probes, width=4, seed=1)["change"].unique().tolist()
        ['none', 'shuffle', 'drop', 'swap', 'misspell']
    """
    whole = target_nll(model, probes.contexts[:, -width:], probes.targets)
    rows = [{"change": "none", "amount": 0.0, **_summary(whole), **_against(whole, whole, "increase")}]
    for change, amount, contexts in damages(probes.contexts, tokenizer, width, seed):
        nll = target_nll(model, contexts, probes.targets)
        rows.append({"change": change, "amount": amount, **_summary(nll), **_against(nll, whole, "increase")})
    return pd.DataFrame(rows)


def damages(contexts: Ids, tokenizer: Tokenizer, width: int, seed: int) -> Iterator[tuple[str, float, Ids]]:
    """Yield the name, amount and result of every damage to contexts [B, T or wider].

    Example:
        >>> contexts = sample_contexts(corpus.train, count=20, width=8, seed=1).contexts
        >>> sorted({change for change, _, _ in damages(contexts, corpus.tokenizer, width=4, seed=1)})
        ['drop', 'misspell', 'shuffle', 'swap']
    """
    own = contexts[:, -width:]
    for distance in [0, *context_lengths(width)]:
        if distance < width - 1:
            yield "shuffle", float(distance), shuffle_beyond(own, distance, np.random.default_rng([seed, 1, distance]))
    kinds: dict[str, Callable[[float, np.random.Generator], Ids]] = {
        "drop": lambda share, generator: drop(own, share, generator),
        "swap": lambda share, generator: swap(own, share, generator),
        "misspell": lambda share, generator: misspell(contexts, tokenizer, share, generator)[:, -width:],
    }
    for number, (kind, change) in enumerate(kinds.items()):
        for share in SHARES:
            yield kind, share, change(share, np.random.default_rng([seed, 2 + number, round(100 * share)]))


def shuffle_beyond(contexts: Ids, distance: int, generator: np.random.Generator) -> Ids:
    """Shuffle the tokens of contexts [B, T] before the last `distance`.

    Example:
        >>> shuffle_beyond(np.array([[1, 2, 3, 4]]), 2, np.random.default_rng(1))[0, 2:].tolist()
        [3, 4]
    """
    far = contexts.shape[1] - distance
    return np.concatenate([generator.permuted(contexts[:, :far], axis=1), contexts[:, far:]], axis=1)


def drop(contexts: Ids, share: float, generator: np.random.Generator) -> Ids:
    """Remove a random share of the tokens of contexts [B, T]; at least one remains.

    Example:
        >>> drop(np.array([[1, 2, 3, 4]]), 0.5, np.random.default_rng(1)).shape
        (1, 2)
    """
    kept = max(1, contexts.shape[1] - round(share * contexts.shape[1]))
    order = np.argsort(generator.random(contexts.shape), axis=1)[:, :kept]
    return np.take_along_axis(contexts, np.sort(order, axis=1), axis=1)


def swap(contexts: Ids, share: float, generator: np.random.Generator) -> Ids:
    """Swap a random share of the tokens of contexts [B, T] with a neighbor.

    Example:
        >>> swap(np.array([[1, 2, 3, 4]]), 1.0, np.random.default_rng(1)).tolist()
        [[2, 1, 4, 3]]
    """
    pairs = contexts.shape[1] // 2
    swapped = contexts.copy()
    chosen = np.argsort(generator.random((len(contexts), pairs)), axis=1)[:, : round(share * pairs)]
    # Pairs are counted from the end, so that they include the token next to the target.
    right = contexts.shape[1] - 1 - 2 * chosen
    rows = np.arange(len(contexts))[:, None]
    swapped[rows, right], swapped[rows, right - 1] = contexts[rows, right - 1], contexts[rows, right]
    return swapped


def misspell(contexts: Ids, tokenizer: Tokenizer, share: float, generator: np.random.Generator) -> Ids:
    """Put a typing error into a random share of the words of contexts [B, T], if they have three letters or more.

    Two neighboring letters inside the word are swapped, or one is dropped or doubled; then the word is tokenized again.
    With a word tokenizer it mostly becomes `<unk>`. If a row gets longer, its first tokens are dropped; if it gets
    shorter, it is filled up with the first tokens of the original.

    Example:
        >>> contexts = sample_contexts(corpus.train, count=2, width=6, seed=1).contexts
        >>> misspell(contexts, corpus.tokenizer, 1.0, np.random.default_rng(1)).shape
        (2, 6)
    """
    pieces = tokenizer.pieces
    rows = []
    for context in contexts:
        words = find_words(context, tokenizer)
        ends = np.searchsorted(words.of_token, np.arange(len(words.texts) + 1))
        able = [number for number, text in enumerate(words.texts) if len(text) > 2 and text.isalpha()]
        chosen = set(generator.permutation(able)[: round(share * len(words.texts))].tolist())
        row: list[int] = []
        for number in range(len(words.texts)):
            ids = context[ends[number] : ends[number + 1]].tolist()
            if number in chosen:
                text = b"".join(pieces[token] for token in ids).decode("utf-8", "replace")
                blank = "" if tokenizer.joins_words else text[: len(text) - len(text.lstrip())]
                ids = tokenizer.encode(blank + typing_error(words.texts[number], generator))
            row.extend(ids)
        missing = max(0, len(context) - len(row))
        rows.append([*context[:missing].tolist(), *row][-len(context) :])
    return np.array(rows, np.int64)


def typing_error(word: str, generator: np.random.Generator) -> str:
    """Return a word of at least three letters with one error after its first letter, different from the word.

    Example:
        >>> typing_error("house", np.random.default_rng(1)) != "house"
        True
    """
    for _ in range(8):
        place = int(generator.integers(1, len(word) - 1))
        kind = int(generator.integers(3))
        if kind == 0:
            changed = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
        elif kind == 1:
            changed = word[:place] + word[place + 1 :]
        else:
            changed = word[:place] + word[place] + word[place:]
        if changed != word:
            return changed
    return word + word[-1]


def divergences(original: torch.Tensor, changed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the divergence of predictions, in nats.

    Args:
        original: log-probabilities [B, V] or [1, V].
        changed: log-probabilities [B, V].

    Returns:
        Kullback–Leibler divergence of the changed predictions from the original, and Jensen–Shannon divergence (at
        most ln 2), each [B].

    Example:
        >>> certain, even = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.5, 0.5]]).log()
        >>> kl, js = divergences(certain, even)
        >>> round(kl.item(), 3), round(js.item(), 3)
        (0.693, 0.216)
    """
    middle = torch.logaddexp(original, changed) - math.log(2)

    def divergence(from_: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        terms = torch.where(from_ == -torch.inf, torch.zeros_like(to), from_.exp() * (from_ - to))
        return terms.sum(-1).clamp(min=0)

    first = divergence(original.expand_as(changed), changed)
    return first, (divergence(original.expand_as(changed), middle) + divergence(changed, middle)) / 2


def word_changes(
    model: LanguageModel, tokenizer: Tokenizer, probes: ContextSample, counts: NDArray[np.int64], reach: int, seed: int
) -> pd.DataFrame:
    """Measure the effect of one changed word on the prediction.

    Each of the last `reach` tokens of each context is replaced, one at a time, by a word drawn by its frequency in
    train.

    Args:
        model: any model.
        tokenizer: tokenizer of the ids.
        probes: positions with their contexts.
        counts: occurrences of each token in train [V].
        reach: number of tokens to replace, one at a time.
        seed: random seed.

    Returns:
        One row per change, the largest Jensen–Shannon divergence first: `position` in the stream, `distance` from the
        target (1: next to it), `word`, `replaced_by`, `js`, `kl` in nats, `target`, its probability `before` and
        `after`, and the `context`.

    Raises:
        LinguistError: the context is shorter than the reach.

    Example:
        >>> probes = sample_contexts(corpus.train, count=5, width=4, seed=1)
        >>> word_changes(model, corpus.tokenizer, probes, corpus.token_counts(), reach=2, seed=1).shape[0]
        10
    """
    if not 1 <= reach <= probes.contexts.shape[1]:
        raise LinguistError(
            f"reach={reach}: must be from 1 to the length of the context, {probes.contexts.shape[1]} tokens"
        )
    weights = counts.astype(np.float64)
    weights[[tokenizer.eos_id, tokenizer.unk_id]] = 0
    generator, texts = np.random.default_rng(seed), piece_texts(tokenizer)
    rows: list[dict[str, object]] = []
    for position, context, target in zip(probes.positions, probes.contexts, probes.targets, strict=True):
        drawn = _other_words(context[-reach:], weights, generator)
        rows.extend(_changes_of(model, context, int(target), drawn, texts, int(position)))
    return pd.DataFrame(rows).sort_values("js", ascending=False, kind="stable", ignore_index=True)


def _other_words(words: Ids, weights: Floats, generator: np.random.Generator) -> Ids:
    """Draw a different word for each word, by weight."""
    drawn = generator.choice(len(weights), (8, len(words)), p=weights / weights.sum())
    different = drawn != words
    # If all eight draws are the word itself, the word stays.
    chosen: Ids = drawn[different.argmax(axis=0), np.arange(len(words))].astype(np.int64)
    return chosen


def _changes_of(
    model: LanguageModel, context: Ids, target: int, drawn: Ids, texts: Sequence[str], position: int
) -> Iterator[dict[str, object]]:
    places = np.arange(len(context) - len(drawn), len(context))
    changed = np.repeat(context[None], len(drawn) + 1, axis=0)
    changed[np.arange(1, len(drawn) + 1), places] = drawn
    found = torch.cat(list(next_log_probabilities(model, changed)))
    kl, js = divergences(found[:1], found[1:])
    shown = "".join(texts[token] for token in context[-SHOWN:]).strip()
    for number, place in enumerate(places):
        yield {
            "position": position,
            "distance": len(context) - int(place),
            "word": texts[context[place]].strip(),
            "replaced_by": texts[drawn[number]].strip(),
            "js": float(js[number]),
            "kl": float(kl[number]),
            "target": texts[target].strip(),
            "before": float(found[0, target].exp()),
            "after": float(found[number + 1, target].exp()),
            "context": shown,
        }
