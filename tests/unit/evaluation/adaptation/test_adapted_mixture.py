"""Runs with every adaptation they support, mixed by EM on valid."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from torch_linguist.data import TokenizedCorpus
from torch_linguist.errors import ConfigError
from torch_linguist.evaluation.adaptation.adapted_run import AdaptationSettings, AdaptedRun
from torch_linguist.evaluation.adaptation.continuous_cache import CacheSettings, cached_nll
from torch_linguist.evaluation.adaptation.dynamic_evaluation import DynamicSettings, dynamic_parts, gradient_scale
from torch_linguist.evaluation.run_evaluation import EvaluationSettings, RunOnCorpus, evaluate_runs
from torch_linguist.model import LanguageModel, NGramModel

ModelBuilder = Callable[..., LanguageModel]
SETTINGS: dict[str, Any] = {"cache_size": 30, "dynamic": True, "segment": 16, "tune_tokens": 200}


@pytest.fixture
def runs(tiny_corpus: TokenizedCorpus, build_model: ModelBuilder) -> list[RunOnCorpus]:
    tokenizer = tiny_corpus.tokenizer
    ngram = NGramModel(tokenizer.vocab_size, 3)
    ngram.fit_counts(tiny_corpus.train.ids, tokenizer.eos_id)
    models = {"lstm": build_model("lstm", tokenizer.vocab_size), "ngram": ngram}
    return [RunOnCorpus(label, model, tokenizer, "made", tiny_corpus) for label, model in models.items()]


def test_every_run_adapts_as_far_as_it_can(runs: list[RunOnCorpus]) -> None:
    notes: list[str] = []
    shown: dict[str, float] = {}
    entries = evaluate_runs(runs, EvaluationSettings(mix=True, **SETTINGS), notes.append, shown.__setitem__)
    losses = {entry.model: entry.score.loss for entry in entries}
    adapted = {"lstm + cache", "lstm + dynamic", "lstm + dynamic + cache"}
    assert set(losses) == {"lstm", "ngram", "mixture", "adapted mixture"} | adapted
    assert losses["lstm + dynamic"] < losses["lstm"]
    readings = {entry.model: entry.reading for entry in entries}
    assert readings["lstm + cache"] == readings["lstm"]
    assert readings["lstm + dynamic"] == f"{readings['lstm']}, weights change every {SETTINGS['segment']} tokens"
    assert losses["adapted mixture"] < losses["lstm + dynamic + cache"]
    assert "adapted mixture, fitted on the first 200 tokens of valid" in notes[-1]
    assert adapted <= {name.removesuffix(" on test") for name, done in shown.items() if done == pytest.approx(1)} | {
        "lstm + dynamic"
    }


def test_the_mixture_is_no_worse_than_its_parts_where_it_was_fitted(runs: list[RunOnCorpus]) -> None:
    tokens = len(runs[0].corpus.valid)
    settings = EvaluationSettings(("valid",), mix=True, **(SETTINGS | {"tune_tokens": tokens}))
    losses = {entry.model: entry.score.loss for entry in evaluate_runs(runs, settings)}
    assert losses["adapted mixture"] <= min(losses.values()) + 1e-9


def test_a_cache_on_a_learning_model_keeps_its_hidden_vectors(runs: list[RunOnCorpus]) -> None:
    model, corpus, notes = runs[0].model, runs[0].corpus, list[str]()
    settings = AdaptationSettings(30, True, 16, 200, None)
    adapted = AdaptedRun("lstm", model, corpus.train, corpus.valid, settings, notes.append, lambda what, done: None)
    found = adapted.nll(corpus.test, 100)
    rate, decay = (float(notes[0].split(f"{word} ")[1].split(",")[0]) for word in ("rate", "decay"))
    theta, share = (float(notes[2].split(f"{word} ")[1].split(",")[0]) for word in ("theta", "share"))
    scale = gradient_scale(model, corpus.train, segment=16)
    parts = list(dynamic_parts(model, corpus.test, DynamicSettings(rate, decay, 16), scale, max_tokens=100))
    np.testing.assert_allclose(found["dynamic"], np.concatenate([part.nll.numpy() for part in parts]), rtol=1e-6)
    np.testing.assert_allclose(found["dynamic + cache"], cached_nll(parts, CacheSettings(30, theta, share)), rtol=1e-6)


def test_an_adaptation_that_no_run_supports_is_refused_before_scoring(runs: list[RunOnCorpus]) -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"cache_size": 9}, "--cache: no run"),
        ({"dynamic": True}, "--dynamic: no run"),
    )
    for settings, message in refused:
        with pytest.raises(ConfigError, match=message):
            evaluate_runs(runs[1:], EvaluationSettings(**settings))
