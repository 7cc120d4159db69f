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
from torch_linguist.evaluation.adaptation.continuous_cache import cached_nll, tune_cache
from torch_linguist.evaluation.adaptation.dynamic_evaluation import dynamic_nll, gradient_scale, tune_dynamic
from torch_linguist.evaluation.mixture_scoring import fitted_weights, mixed_nll
from torch_linguist.evaluation.scoring import Score
from torch_linguist.evaluation.split_evaluation import SplitEvaluation, evaluate_split, reading_of
from torch_linguist.model import LanguageModel


@dataclass(frozen=True)
class EvaluationSettings:
    """What to score, and how.

    Attributes:
        splits: names of the splits; `all` is the whole corpus, every split in order.
        mix: whether to score the linear mixture of the runs, with weights fitted by EM on valid.
        stride: new tokens per window of a model with a bounded context; None for half of its context.
        precision: precision of the matrix products, `fp32` or `bf16`.
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
) -> list[ScoredModel]:
    """Score runs on the splits of a corpus, with their mixture and with adaptation if requested.

    Args:
        runs: the runs, each with the corpus in its tokens.
        settings: what to score; None scores the test split.
        note: called with the tuned settings of mixtures, caches and dynamic evaluation.

    Returns:
        The scores: for each split the runs and their mixture, then the adapting models.

    Raises:
        LinguistError: a model cannot be scored this way, or a split is empty.
    """
    evaluator = _Evaluator(settings or EvaluationSettings(), note)
    return [*evaluator.plain_scores(runs), *(one for run in runs for one in evaluator.adapted_scores(run))]


class _Evaluator:
    """Scores each split at most once per run."""

    def __init__(self, settings: EvaluationSettings, note: Callable[[str], None]) -> None:
        self._settings, self._note = settings, note
        self._known: dict[tuple[str, str], SplitEvaluation] = {}

    def plain_scores(self, runs: Sequence[RunOnCorpus]) -> Iterator[ScoredModel]:
        weights = self._fitted_weights(runs) if self._settings.mix else []
        for split in self._settings.splits:
            for run in runs:
                yield self._scored(run, run.label, split, self._evaluate(run, split))
            if weights:
                parts = [self._evaluate(run, split) for run in runs]
                mixed = mixed_nll([part.nll for part in parts], weights)
                evaluation = SplitEvaluation(parts[0].stream, mixed, parts[0].unk_id)
                yield self._scored(runs[0], "mixture", split, evaluation, "each run reads as it does alone")

    def adapted_scores(self, run: RunOnCorpus) -> Iterator[ScoredModel]:
        settings = self._settings
        if settings.cache_size is not None:
            yield from self._adapted(run, "cache", self._tuned_cache(run, settings.cache_size))
        if settings.dynamic:
            yield from self._adapted(run, "dynamic", self._tuned_dynamic(run))

    def _evaluate(self, run: RunOnCorpus, split: str) -> SplitEvaluation:
        if (run.label, split) not in self._known:
            stream, settings = run.corpus.stream(split), self._settings
            self._known[run.label, split] = evaluate_split(
                run.model, stream, run.tokenizer.unk_id, stride=settings.stride, precision=settings.precision
            )
        return self._known[run.label, split]

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

    def _adapted(
        self, run: RunOnCorpus, kind: str, nll_of: Callable[[str], NDArray[np.float64]]
    ) -> Iterator[ScoredModel]:
        for split in self._settings.splits:
            evaluation = SplitEvaluation(run.corpus.stream(split), nll_of(split), run.tokenizer.unk_id)
            yield self._scored(run, f"{run.label} + {kind}", split, evaluation)

    def _tuned_cache(self, run: RunOnCorpus, size: int) -> Callable[[str], NDArray[np.float64]]:
        settings, streams = self._settings, run.corpus.streams
        best, tried = tune_cache(
            run.model, streams["valid"], size=size, max_tokens=settings.tune_tokens, stride=settings.stride
        )
        self._note_tuning(run, f"cache: theta {best.theta:g}, share {best.share:g}, {best.size} tokens", tried)
        return lambda split: cached_nll(run.model, run.corpus.stream(split), best, stride=settings.stride)

    def _tuned_dynamic(self, run: RunOnCorpus) -> Callable[[str], NDArray[np.float64]]:
        settings, streams = self._settings, run.corpus.streams
        scale = gradient_scale(run.model, streams["train"], segment=settings.segment)
        best, tried = tune_dynamic(
            run.model, streams["valid"], scale, segment=settings.segment, max_tokens=settings.tune_tokens
        )
        found = f"learning rate {best.learning_rate:g}, decay {best.decay:g}, {best.segment} tokens per step"
        self._note_tuning(run, f"dynamic: {found}", tried)
        return lambda split: dynamic_nll(run.model, run.corpus.stream(split), best, scale)

    def _note_tuning(self, run: RunOnCorpus, found: str, tried: Sequence[tuple[object, float]]) -> None:
        losses = [loss for _, loss in tried]
        tokens = min(self._settings.tune_tokens, len(run.corpus.streams["valid"]))
        self._note(
            f"{run.label} + {found}; best of {len(tried)} on the first {tokens:,} tokens of valid "
            f"(loss {min(losses):.4f}; worst {max(losses):.4f})"
        )
