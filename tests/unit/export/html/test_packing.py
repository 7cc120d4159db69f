"""Weights of a page: rounding within half a step, codes that stand for their means, text that stays text."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from torch_linguist.data import TokenizedCorpus
from torch_linguist.errors import LinguistError
from torch_linguist.export.html import PageModel, write_html
from torch_linguist.export.html.packing import Blob, coded, page_ngrams, quantized_rows, rounded_copy
from torch_linguist.model import LanguageModel, NGramModel

ModelBuilder = Callable[..., LanguageModel]


@given(arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32)))
def test_rounding_stays_within_half_a_step(values: np.ndarray) -> None:
    codes, scales = quantized_rows(torch.from_numpy(values))
    difference = (codes.float() * scales[:, None] - torch.from_numpy(values)).abs()
    assert bool((difference <= scales[:, None] * 0.5001).all())
    assert int(codes.abs().max()) <= 127


def test_codes_stand_for_the_mean_of_their_values() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    codes, centers = coded(values)
    for code in (0, 17, 255):
        assert centers[code] == pytest.approx(values[codes == code].mean(), abs=1e-6)
    few = np.array([-1.0, 0.0, 0.0, 2.5])
    codes, centers = coded(few)
    assert centers[codes].tolist() == few.tolist()


def test_a_blob_aligns_its_arrays() -> None:
    blob = Blob()
    first, second = blob.add(np.arange(3), "uint8"), blob.add(np.arange(2.0), "float32")
    assert (first["offset"], second["offset"]) == (0, 4)
    assert np.frombuffer(blob.content, np.float32, 2, second["offset"]).tolist() == [0.0, 1.0]


def test_a_rounded_copy_leaves_the_model_alone(build_model: ModelBuilder) -> None:
    model = build_model("lstm")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rounded_copy(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_large_ngram_model_is_pruned(tiny_corpus: TokenizedCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NGramModel(tiny_corpus.tokenizer.vocab_size, order=4)
    model.fit_counts(tiny_corpus.train.ids, tiny_corpus.tokenizer.eos_id)
    whole = model.backoff_model()
    assert page_ngrams(whole) == (whole, 0.0)
    monkeypatch.setattr("torch_linguist.export.html.packing.MOST_NGRAMS", sum(whole.sizes()) // 2)
    smaller, threshold = page_ngrams(whole)
    assert threshold > 0
    assert sum(smaller.sizes()) <= sum(whole.sizes()) // 2


def test_what_is_named_in_a_page_stays_text(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    hostile = "</script><script>alert(1)</script>"
    model = build_model("gru", tiny_corpus.tokenizer.vocab_size)
    summary = {"model": hostile, "data": "<b>", "test": {"tokens": 1, "loss": 1.0, "perplexity": 2.0}}
    size = write_html([PageModel(hostile, model, tiny_corpus.tokenizer, summary)], tmp_path / "a.html", hostile)
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert size == len(page.encode())
    assert "alert(1)</script>" not in page
    (data,) = re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data)["runs"][0]["label"] == hostile
    assert not re.findall(r"""(?:src|href)=["']?(?!data:)""", page)


def test_a_page_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(LinguistError, match="at least one model"):
        write_html([], tmp_path / "a.html")
