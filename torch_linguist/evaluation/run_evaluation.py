"""Scores of several runs on one corpus: each run alone, their mixture, and the runs adapting to the text.

Shape legend: N tokens of a split.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from torch_linguist.checkpoint.loaded_run import LoadedRun
from torch_linguist.data import Corpus, TokenizedCorpus, Tokenizer, prepare
from torch_linguist.errors import ConfigError
from torch_linguist.evaluation.adaptation.adapted_run import AdaptationSettings, AdaptedRun, Progress, can_learn
from torch_linguist.evaluation.adaptation.following_weights import FollowingSettings, following_nll, tune_following
from torch_linguist.evaluation.mixture_scoring import fitted_weights, member_nll, mixed_nll
from torch_linguist.evaluation.scoring import Score
from torch_linguist.evaluation.split_evaluation import SplitEvaluation, reading_of
from torch_linguist.model import LanguageModel


@dataclass(frozen=True)
class EvaluationSettings:
    """What to score, and how.

    Attributes:
        splits: names of the splits; `all` is the whole corpus, every split in order.
        mix: whether to score the linear mixture of the runs, with weights fitted by EM on valid.
        stride: new tokens per window of a model with a bounded context; None for half of its context.
        precision: precision of the matrix products, `fp32` or `bf16`; dynamic evaluation computes in the type of the
            weights.
        cache_size: tokens of a continuous cache; None scores none.
        dynamic: whether to score with dynamic evaluation.
        segment: tokens per step of dynamic evaluation.
        tune_tokens: tokens of valid on which the cache and dynamic evaluation are tuned.

    Raises:
        ConfigError: a value is out of range.
    """

    splits: Sequence[str] = ("test",)
    mix: bool = False
    stride: int | None = None
    precision: str = "fp32"
    cache_size: int | None = None
    dynamic: bool = False
    segment: int = 64
    tune_tokens: int = 20_000

    def __post_init__(self) -> None:
        for name in ("segment", "tune_tokens", "cache_size", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}: must be at least 1")


@dataclass(frozen=True, eq=False)
class RunOnCorpus:
    """A run with a corpus in its own tokens.

    Attributes:
        label: name of the run in tables.
        model: best model of the run.
        tokenizer: tokenizer of the run.
        corpus_name: name of the corpus in tables.
        corpus: the tokenized corpus.
    """

    label: str
    model: LanguageModel
    tokenizer: Tokenizer
    corpus_name: str
    corpus: TokenizedCorpus

    @classmethod
    def prepare(
        cls, label: str, run: LoadedRun, source: Corpus, corpus_name: str | None = None, *, own: bool = False
    ) -> Self:
        """Tokenize a corpus with the tokenizer of a run.

        Args:
            label: name of the run in tables.
            run: the run.
            source: the corpus.
            corpus_name: name of the corpus in tables; None for its own.
            own: whether it is the run's own corpus, which must not have changed since the run began.

        Raises:
            DataError: the corpus cannot be read, or is the run's own and has changed.
        """
        corpus = run.own_corpus(source) if own else prepare(source, None, tokenizer=run.tokenizer)
        return cls(label, run.model, run.tokenizer, corpus_name or source.name, corpus)


@dataclass(frozen=True, eq=False)
class ScoredModel:
    """A model's evaluation on a split of a corpus.

    Attributes:
        model: name of the model.
        corpus: name of the corpus.
        split: name of the split.
        tokenizer: identifies the tokenizer; models that share it are compared token by token.
        reading: how the model reads a stream, in words.
        evaluation: loss of every token, and what follows from it.
    """

    model: str
    corpus: str
    split: str
    tokenizer: str
    reading: str
    evaluation: SplitEvaluation

    @property
    def score(self) -> Score:
        """Score of the split."""
        return self.evaluation.score


def check_same_tokenizer(runs: Sequence[LoadedRun]) -> None:
    """Check that runs can be mixed.

    Raises:
        ConfigError: two runs have different tokenizers.
    """
    for run in runs[1:]:
        if run.tokenizer.to_json() != runs[0].tokenizer.to_json():
            raise ConfigError(
                f"{run.folder} has another tokenizer than {runs[0].folder}; a mixture needs runs on the same tokens"
            )


def evaluate_runs(
    runs: Sequence[RunOnCorpus],
    settings: EvaluationSettings | None = None,
    note: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda what, fraction: None,
) -> list[ScoredModel]:
    """Score runs on the splits of a corpus, with their mixture and with adaptation if requested.

    Each adaptation is applied to the runs that support it. With `mix`, a second mixture takes in every run and every
    adapted form of it; its weights are fitted by EM on the tokens of valid that the adaptations are tuned on.

    Args:
        runs: the runs, each with the corpus in its tokens.
        settings: what to score; None scores the test split.
        note: called with the tuned settings of mixtures, caches and dynamic evaluation.
        progress: called with what is being scored, and the fraction that is done.

    Returns:
        The scores: for each split the runs and their mixture, then the adapting models and their mixture.

    Raises:
        ConfigError: no run supports a requested adaptation.
        LinguistError: a model cannot be scored this way, or a split is empty.
    """
    settings = settings or EvaluationSettings()
    check_adaptations(runs, settings)
    evaluator = _Evaluator(settings, note, progress)
    return [*evaluator.plain_scores(runs), *evaluator.adapted_scores(runs)]


def check_adaptations(runs: Sequence[RunOnCorpus], settings: EvaluationSettings) -> None:
    """Check that at least one run supports each requested adaptation, before anything is scored.

    Raises:
        ConfigError: no run does.
    """
    if settings.cache_size is not None and not any(run.model.has_hidden for run in runs):
        raise ConfigError("--cache: no run has hidden vectors to keep; add a run of rnn, lstm, gru or transformer")
    if settings.dynamic and not any(can_learn(run.model) for run in runs):
        raise ConfigError("--dynamic: no run has weights to train; add a run of rnn, lstm, gru or transformer")


class _Evaluator:
    """Scores each split at most once per run."""

    def __init__(self, settings: EvaluationSettings, note: Callable[[str], None], progress: Progress) -> None:
        self._settings, self._note, self._progress = settings, note, progress
        self._known: dict[tuple[str, str], tuple[SplitEvaluation, list[SplitEvaluation]]] = {}

    def plain_scores(self, runs: Sequence[RunOnCorpus]) -> Iterator[ScoredModel]:
        weights = self._fitted_weights(runs) if self._settings.mix else []
        for run in runs:
            if components := run.model.mixture():
                shares = ", ".join(f"{weight:.3f} member {number}" for number, (_, weight) in enumerate(components, 1))
                self._note(f"{run.label} is a mixture: {shares}")
        for split in self._settings.splits:
            for run in runs:
                yield self._scored(run, run.label, split, self._evaluate(run, split))
                for number, member in enumerate(self._known[run.label, split][1], 1):
                    yield self._scored(run, f"{run.label}, member {number}", split, member)
            if weights:
                parts = [self._evaluate(run, split) for run in runs]
                mixed = mixed_nll([part.nll for part in parts], weights)
                evaluation = SplitEvaluation(parts[0].stream, mixed, parts[0].unk_id)
                yield self._scored(runs[0], "mixture", split, evaluation, "each run reads as it does alone")

    def adapted_scores(self, runs: Sequence[RunOnCorpus]) -> Iterator[ScoredModel]:
        settings = self._settings
        if settings.cache_size is None and not settings.dynamic:
            return
        how = AdaptationSettings(
            settings.cache_size,
            settings.dynamic,
            settings.segment,
            settings.tune_tokens,
            settings.stride,
            settings.precision,
        )
        adapted = [self._adapted_run(run, how) for run in runs]
        weights, following = self._adapted_weights(runs, adapted) if settings.mix else ({}, FollowingSettings())
        for split in settings.splits:
            forms: dict[str, NDArray[np.float64]] = {}
            for run, one in zip(runs, adapted, strict=True):
                forms[run.label] = self._evaluate(run, split).nll
                for kind, nll in one.nll(run.corpus.stream(split)).items():
                    name = f"{run.label} + {kind}"
                    forms[name] = nll
                    evaluation = SplitEvaluation(run.corpus.stream(split), nll, run.tokenizer.unk_id)
                    yield self._scored(run, name, split, evaluation, one.reading(kind))
            if weights:
                mixed = following_nll([forms[name] for name in weights], list(weights.values()), following)
                evaluation = SplitEvaluation(runs[0].corpus.stream(split), mixed, runs[0].tokenizer.unk_id)
                reading = "each form reads as it does alone"
                if following.share < 1:
                    reading += "; the weights follow the text"
                yield self._scored(runs[0], "adapted mixture", split, evaluation, reading)

    def _adapted_run(self, run: RunOnCorpus, settings: AdaptationSettings) -> AdaptedRun:
        streams = run.corpus.streams
        return AdaptedRun(
            run.label, run.model, streams["train"], streams["valid"], settings, self._note, self._progress
        )

    def _adapted_weights(
        self, runs: Sequence[RunOnCorpus], adapted: Sequence[AdaptedRun]
    ) -> tuple[dict[str, float], FollowingSettings]:
        """Return the weight of each run and each adapted form of it, and how fast the weights follow the text.

        Both are fitted on the tokens that the forms were tuned on.
        """
        tokens = self._settings.tune_tokens
        forms: dict[str, NDArray[np.float64]] = {}
        for run, one in zip(runs, adapted, strict=True):
            forms[run.label] = self._evaluate(run, "valid").nll[:tokens]
            for kind, nll in one.nll(run.corpus.stream("valid"), tokens).items():
                forms[f"{run.label} + {kind}"] = nll
        weights = dict(zip(forms, fitted_weights(list(forms.values())), strict=True))
        shares = ", ".join(f"{weight:.3f} {name}" for name, weight in weights.items())
        following = tune_following(list(forms.values()), list(weights.values()))
        rule = "fixed weights"
        if following.share < 1:
            rule = f"weights that follow the text (power {following.power:g}, share {following.share:g})"
        count = len(forms[runs[0].label])
        self._note(f"adapted mixture, fitted on the first {count:,} tokens of valid: {shares}; {rule}")
        return weights, following

    def _evaluate(self, run: RunOnCorpus, split: str) -> SplitEvaluation:
        if (run.label, split) not in self._known:
            stream, settings = run.corpus.stream(split), self._settings
            nll, members = member_nll(run.model, stream, stride=settings.stride, precision=settings.precision)
            whole, *parts = (SplitEvaluation(stream, one, run.tokenizer.unk_id) for one in (nll, *members))
            self._known[run.label, split] = whole, parts
        return self._known[run.label, split][0]

    def _scored(
        self, run: RunOnCorpus, name: str, split: str, evaluation: SplitEvaluation, reading: str | None = None
    ) -> ScoredModel:
        reading = reading or reading_of(run.model, self._settings.stride, self._settings.precision)
        return ScoredModel(name, run.corpus_name, split, run.tokenizer.to_json(), reading, evaluation)

    def _fitted_weights(self, runs: Sequence[RunOnCorpus]) -> list[float]:
        weights = fitted_weights([self._evaluate(run, "valid").nll for run in runs])
        shares = ", ".join(f"{weight:.3f} {run.label}" for weight, run in zip(weights, runs, strict=True))
        self._note(f"mixture, fitted on valid: {shares}")
        return weights
