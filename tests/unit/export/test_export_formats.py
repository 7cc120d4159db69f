"""torch.export, ONNX and eight bits: equal on shapes that they were not traced with, or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torch_linguist.data import TokenizedCorpus
from torch_linguist.errors import LinguistError
from torch_linguist.export import compare, export_jit, load_jit, perplexities
from torch_linguist.export import graph_tracing as graphs
from torch_linguist.export.formats.int8 import export_int8
from torch_linguist.export.graph_tracing import export_onnx, export_pt2
from torch_linguist.export.model_card import model_card
from torch_linguist.model import LanguageModel, NGramModel

ModelBuilder = Callable[..., LanguageModel]
ADAPTIVE: dict[str, Any] = {"output": "adaptive", "cutoffs": [10, 20]}
# Other lengths than that of the tracing, one token among them, and an empty past.
SHAPES = ((1, 1), (2, 9), (4, 1), (1, 20))
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


# The commands' test exports an LSTM.
@pytest.mark.parametrize(("family", "options"), [("rnn", {}), ("transformer", {**ADAPTIVE, "tied": True})])
def test_a_graph_takes_every_batch_and_length(
    family: str, options: dict[str, Any], build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    tokenizer = tiny_corpus.tokenizer
    model = build_model(family, tokenizer.vocab_size, **options).train()
    report, runner = export_pt2(model, tokenizer, tmp_path / "model.pt2", {"lr": 0.1})
    assert model.training
    assert report.difference < 1e-5
    model.eval()
    assert compare(model, runner, SHAPES) < 1e-5
    extra = {"settings.json": "", "vocabulary.json": ""}
    call = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    settings = json.loads(extra["settings.json"])
    assert json.loads(extra["vocabulary.json"]) == tokenizer.tokens
    assert settings["one_token"] == (family == "rnn")
    # What the file says of the state is enough to run it.
    state = [torch.zeros([3 if size == "batch" else size for size in shape]) for shape in settings["state"]]
    tokens = torch.tensor([[1], [2], [3]])
    with torch.no_grad():
        expected, _ = model(tokens, model.initial_state(3))
    torch.testing.assert_close(call(tokens, state)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "options"), [("lstm", ADAPTIVE), ("gru", {"projection_size": 12}), ("transformer", {})]
)
def test_onnxruntime_gives_the_same(
    family: str, options: dict[str, Any], build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    tokenizer = tiny_corpus.tokenizer
    model = build_model(family, tokenizer.vocab_size, **options)
    report, runner = export_onnx(model, tokenizer, tmp_path / "model.onnx")
    assert report.difference < 1e-5
    assert compare(model, runner, SHAPES) < 1e-5
    assert not model.training
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["vocabulary.json"]) == tokenizer.tokens
    states = [tensor.numpy() for tensor in model.initial_state(2)]
    given = {"tokens": np.array([[1, 2, 3], [4, 5, 6]]), **{f"state_{i}": state for i, state in enumerate(states)}}
    with torch.no_grad():
        expected, _ = model(torch.from_numpy(given["tokens"]), model.initial_state(2))
    np.testing.assert_allclose(session.run(["logits"], given)[0], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("family", "options"), [("lstm", {**ADAPTIVE, "tied": True}), ("gru", {}), ("transformer", ADAPTIVE)]
)
def test_eight_bits_are_smaller_and_nearly_as_good(
    family: str, options: dict[str, Any], build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    tokenizer = tiny_corpus.tokenizer
    # Wide enough that weights, not the file's code, make its size.
    wide = {"embedding_dim": 128, **({} if family == "transformer" else {"hidden_size": 128})}
    model = build_model(family, tokenizer.vocab_size, **(wide | options))
    full = export_jit(model, tokenizer, tmp_path / "full.jit")
    small = export_int8(model, tokenizer, tmp_path / "small.jit")
    assert small.mebibytes < 0.5 * full.mebibytes
    loaded = load_jit(tmp_path / "small.jit").model
    before, after = perplexities(model, loaded, tiny_corpus.test, 200)
    assert after == pytest.approx(before, rel=0.02)
    assert after != before
    assert loaded.module.generate("the king", 4).startswith("the king")


def test_integers_round_and_nothing_else(build_model: ModelBuilder) -> None:
    model = build_model("lstm", 50, **ADAPTIVE)
    with torch.no_grad():
        quantized = model.quantized()
        tokens = torch.randint(50, (2, 6))
        logits, state = quantized(tokens, model.initial_state(2))
        expected, expected_state = model(tokens, model.initial_state(2))
        # Every distribution is still normalized, and near the one that it stands for.
        torch.testing.assert_close(torch.logsumexp(logits, -1), torch.zeros(2, 6), atol=1e-5, rtol=0)
    assert (torch.log_softmax(expected, -1) - logits).abs().max() < 0.1
    assert (expected_state[0] - state[0]).abs().max() < 0.05


def test_what_cannot_be_exported_is_named(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, tokenizer = NGramModel(tiny_corpus.tokenizer.vocab_size, 2), tiny_corpus.tokenizer
    for export, message in ((export_pt2, "--pt2"), (export_onnx, "--onnx"), (export_int8, "--quantize")):
        with pytest.raises(LinguistError, match=f"^{message}: a NGramModel"):
            export(counted, tokenizer, tmp_path / "x")
    model = build_model("rnn", tokenizer.vocab_size)
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(LinguistError, match=r'pip install "torch-linguist\[onnx\]"'):
        export_onnx(model, tokenizer, tmp_path / "x")
    monkeypatch.setattr(graphs, "compare", lambda *_: 0.5)
    with pytest.raises(LinguistError, match="thrown away"):
        export_pt2(model, tokenizer, tmp_path / "x")
    with pytest.raises(LinguistError, match="cannot be written"):
        export_int8(model, tokenizer, tmp_path / "no" / "x")
    assert not list(tmp_path.iterdir())


def test_the_card_says_what_is_known_and_nothing_else() -> None:
    assert "not scored" in model_card("m", {}, "tl-export", [])
    score = {"tokens": 1234, "perplexity": 56.789, "word_perplexity": 80.0, "bits_per_byte": 1.25, "oov_rate": 0.0123}
    summary = {"model": "gru", "data": "sotu", "tokenizer": "word", "test": score, "status": "interrupted", "seed": 7}
    files = [{"format": "jit", "name": "model.jit", "mebibytes": 2.5, "facts": "equal"}]
    card = model_card("mine", summary, "tl-export mine --jit", files, "one\ntwo")
    for text in ("# mine", "| test | 1,234 | 56.79 | 80.00 | 1.2500 | 1.23% |", "status interrupted", "> one\n> two"):
        assert text in card
    assert "valid |" not in card
    assert "None" not in card
