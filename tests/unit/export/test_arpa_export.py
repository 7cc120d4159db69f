"""ARPA as a format of tl-export: equal when read back, from exact, quantized and disk-built models, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torch_linguist.checkpoint import load_run
from torch_linguist.data import TokenizedCorpus
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation import score
from torch_linguist.export import export_file, export_formats
from torch_linguist.export.formats.arpa import ArpaFile
from torch_linguist.model import LanguageModel, NGramModel
from torch_linguist.model.ngram import model as ngram_model


def fitted(corpus: TokenizedCorpus, **options: Any) -> NGramModel:
    model = NGramModel(corpus.tokenizer.vocab_size, order=3, **options)
    model.fit_counts(corpus.train.ids, corpus.tokenizer.eos_id)
    return model


@pytest.mark.parametrize("options", [{}, {"quantize_bits": 8}, {"memory_limit_mib": 16, "entropy_threshold": 1e-6}])
@pytest.mark.parametrize("name", ["model.arpa", "model.arpa.gz"])
def test_the_file_computes_what_the_model_computes_and_is_taken_as_a_run(
    options: dict[str, Any], name: str, tiny_corpus: TokenizedCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ngram_model, "counting_bytes", lambda *sizes: 1 << 40)  # So that a limit works on disk.
    model = fitted(tiny_corpus, **options)
    found = export_file(ArpaFile(), model, tiny_corpus.tokenizer, tmp_path / name, stream=tiny_corpus.test)
    assert found.report.difference < 1e-6
    run = load_run(tmp_path / name)
    assert run.tokenizer.tokens == tiny_corpus.tokenizer.tokens
    assert score(run.model, tiny_corpus.test).loss == pytest.approx(score(model, tiny_corpus.test).loss, abs=1e-6)


def test_other_models_are_refused_and_an_earlier_file_stays(
    build_model: Callable[..., LanguageModel], tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    path = tmp_path / "model.arpa"
    path.write_text("earlier", encoding="utf-8")
    with pytest.raises(LinguistError, match="ARPA files hold n-grams, not a LSTM"):
        ArpaFile().write(build_model("lstm", tiny_corpus.tokenizer.vocab_size), tiny_corpus.tokenizer, path)
    assert path.read_text(encoding="utf-8") == "earlier"
    assert "arpa" in {one.name for one in export_formats()}
