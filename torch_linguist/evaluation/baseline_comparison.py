"""Comparison of a model with its baselines: scores, a mixture with the n-gram, and a verdict in one sentence.

Shape legend: N tokens of a split.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from torch_linguist.data import TokenizedCorpus
from torch_linguist.evaluation.baselines import ngram_nll, unigram_score
from torch_linguist.evaluation.mixture_scoring import fitted_weights, member_nll, mixed_nll
from torch_linguist.evaluation.scoring import Score
from torch_linguist.evaluation.uncertainty import Interval, paired_difference, parts_of
from torch_linguist.model import LanguageModel

SPLITS = ("valid", "test")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BaselineComparison:
    """Scores of a model and its baselines.

    Attributes:
        own: score of the model by split.
        mixture: score of the mixture of model and n-gram by split, its weights fitted on valid; empty without an
            n-gram.
        weight: weight of the model in the mixture; None without an n-gram.
        baselines: scores by baseline and split.
        verdict: one sentence that compares the model with the best baseline on test; None without baselines.
        members: scores of each member by split if the model is a mixture, such as one of snapshots; else empty.

    Example:
        >>> network = LSTM(corpus.tokenizer.vocab_size, embedding_dim=8, hidden_size=8)
        >>> sorted(compare_with_baselines(network, corpus, name="lstm", order=2).own)
        ['test', 'valid']
    """

    own: dict[str, Score]
    mixture: dict[str, Score] = field(default_factory=dict)
    weight: float | None = None
    baselines: dict[str, dict[str, Score]] = field(default_factory=dict)
    verdict: str | None = None
    members: list[dict[str, Score]] = field(default_factory=list)

    def rows(self, name: str) -> dict[str, dict[str, Score]]:
        """Return all scores by name and split: the model, its members, the mixture with the n-gram, the baselines."""
        members = {f"member {number}": scores for number, scores in enumerate(self.members, 1)}
        mixture = {f"{name} + {next(iter(self.baselines))}": self.mixture} if self.mixture else {}
        return {name: self.own, **members, **mixture, **self.baselines}


def compare_with_baselines(
    model: LanguageModel,
    corpus: TokenizedCorpus,
    *,
    name: str,
    order: int | None = 5,
    baselines: bool = True,
    chunk_length: int = 4096,
    stride: int | None = None,
    precision: str = "fp32",
) -> BaselineComparison:
    """Score a model on valid and test, and compare it with its baselines.

    Args:
        model: any model.
        corpus: token streams.
        name: name of the model in the verdict.
        order: words in the longest n-gram of the n-gram baseline; None or 0 for no n-gram.
        baselines: whether to score baselines at all.
        chunk_length: see `score`.
        stride: see `score`.
        precision: see `score`.

    Raises:
        LinguistError: see `score`.

    Example:
        >>> network = LSTM(corpus.tokenizer.vocab_size, embedding_dim=8, hidden_size=8)
        >>> comparison = compare_with_baselines(network, corpus, name="lstm", order=2)
        >>> "unigram" in comparison.baselines
        True
    """
    nll, own = {}, {}
    members: list[dict[str, Score]] = [{} for _ in model.mixture()]
    for split in SPLITS:
        stream = corpus.streams[split]
        nll[split], parts = member_nll(model, stream, chunk_length=chunk_length, stride=stride, precision=precision)
        own[split] = Score.of(float(nll[split].sum()), stream)
        for scores, part in zip(members, parts, strict=True):
            scores[split] = Score.of(float(part.sum()), stream)
    if not baselines:
        return BaselineComparison(own, members=members)
    counts = corpus.token_counts()
    unigram = {split: unigram_score(counts, corpus.streams[split]) for split in SPLITS}
    if not order:
        verdict = _sentence(name, "unigram", own["test"], unigram["test"], "")
        return BaselineComparison(own, baselines={"unigram": unigram}, verdict=verdict, members=members)
    ngram = f"{order}-gram"
    other = ngram_nll(corpus, order, SPLITS)
    weights = fitted_weights([nll["valid"], other["valid"]])
    mixture, ngram_scores = {}, {}
    for split in SPLITS:
        mixed = mixed_nll([nll[split], other[split]], weights)
        mixture[split] = Score.of(float(mixed.sum()), corpus.streams[split])
        ngram_scores[split] = Score.of(float(other[split].sum()), corpus.streams[split])
    where = _where(nll["test"], other["test"], corpus)
    verdict = _sentence(name, ngram, own["test"], ngram_scores["test"], where)
    verdict += f" Mixed, they reach {_perplexity(mixture['test'])} (weight of {name}: {weights[0]:.2f})."
    return BaselineComparison(own, mixture, weights[0], {ngram: ngram_scores, "unigram": unigram}, verdict, members)


def _sentence(name: str, baseline: str, own: Score, other: Score, where: str) -> str:
    both = f"perplexity {_perplexity(own)} against {_perplexity(other)}"
    apart = own.loss - other.loss
    if where.startswith(" within"):
        return f"On test, {name} and the {baseline} do not differ clearly: {both},{where}."
    relation = "beats" if apart < 0 else "loses to"
    return f"On test, {name} {relation} the {baseline}: {both}, {abs(apart):.2f} nats per token{where}."


def _perplexity(score: Score) -> str:
    return f"{score.perplexity:.1f}" if score.perplexity < 1e6 else f"{score.perplexity:.1e}"


def _where(own: Floats, other: Floats, corpus: TokenizedCorpus) -> str:
    """The tokens that make most of the difference, and those on which the worse model is better."""
    stream = corpus.streams["test"]
    parts = parts_of(stream)
    whole = paired_difference(parts.sums(own), parts.sums(other), parts.lengths)
    if _contains_zero(whole.interval):
        return f" within the noise (95% interval {whole.interval.low:+.2f} to {whole.interval.high:+.2f} nats)"
    # pandas, which slices are made of, is not needed before the end of a run.
    from torch_linguist.evaluation.slices import frequency_bands

    bands = frequency_bands(np.asarray(stream.ids).astype(np.int64), corpus.token_counts())
    gains = np.sign(whole.mean) * (own - other)
    totals = np.bincount(bands.codes, gains, minlength=len(bands.labels))
    top = int(totals.argmax())
    text = f", most on tokens that occur {_times(bands.labels[top])} in train"
    lost = np.flatnonzero(totals < -0.02 * gains.sum())
    if len(lost):
        opposite = int(totals.argmin())
        text += f", though not on those that occur {_times(bands.labels[opposite])}"
    return text


def _contains_zero(interval: Interval) -> bool:
    return interval.low <= 0 <= interval.high


def _times(label: str) -> str:
    """A band of frequencies in words: `1–9 times`, `once or more`."""
    return f"at least {label.removeprefix('from ')} times" if label.startswith("from ") else f"{label} times"
