"""torch.export, ONNX and eight bits: equal on shapes that they were not traced with, or refused."""

import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from torch_linguist.data import TokenizedCorpus, Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.export import (
    CheckedFile,
    ExportedFile,
    ExportReport,
    compare,
    comparison,
    export_file,
    export_formats,
    export_jit,
    load_jit,
    perplexities,
)
from torch_linguist.export.formats.int8 import Int8TorchScriptFile
from torch_linguist.export.formats.jit import TorchScriptFile
from torch_linguist.export.formats.onnx_file import OnnxFile
from torch_linguist.export.formats.pt2 import TorchExportFile
from torch_linguist.export.model_card import model_card
from torch_linguist.model import LanguageModel, NGramModel

ModelBuilder = Callable[..., LanguageModel]
ADAPTIVE: dict[str, Any] = {"output": "adaptive", "cutoffs": [10, 20]}
# Other lengths than that of the tracing, one token among them, and an empty past.
SHAPES = ((1, 1), (2, 9), (4, 1), (1, 20))
pytestmark = [
    pytest.mark.filterwarnings("error::DeprecationWarning"),
    pytest.mark.filterwarnings("error::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


# The commands' test exports an LSTM.
@pytest.mark.parametrize(("family", "options"), [("rnn", {}), ("transformer", {**ADAPTIVE, "tied": True})])
def test_a_graph_takes_every_batch_and_length(
    family: str, options: dict[str, Any], build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    tokenizer = tiny_corpus.tokenizer
    model = build_model(family, tokenizer.vocab_size, **options).train()
    report = TorchExportFile().write(model, tokenizer, tmp_path / "model.pt2", {"lr": 0.1})
    assert model.training
    assert report.difference < 1e-5
    model.eval()
    assert compare(model, report.model, SHAPES) < 1e-5
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
    ("family", "options"),
    [("lstm", ADAPTIVE), ("gru", {"projection_size": 12}), ("rnn", {"nonlinearity": "relu"}), ("transformer", {})],
)
def test_onnxruntime_gives_the_same(
    family: str, options: dict[str, Any], build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    tokenizer = tiny_corpus.tokenizer
    model = build_model(family, tokenizer.vocab_size, **options)
    report = OnnxFile().write(model, tokenizer, tmp_path / "model.onnx")
    assert report.difference < 1e-5
    assert compare(model, report.model, SHAPES) < 1e-5
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
    small = Int8TorchScriptFile().write(model, tokenizer, tmp_path / "small.jit")
    assert small.mebibytes < 0.5 * full.mebibytes
    loaded = load_jit(tmp_path / "small.jit").model
    before, after = perplexities(model, loaded, tiny_corpus.test, 200)
    assert after == pytest.approx(before, rel=0.02)
    assert after != before
    assert loaded.module.generate("the king", 4).startswith("the king")


def test_what_cannot_be_exported_is_named(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, tokenizer = NGramModel(tiny_corpus.tokenizer.vocab_size, 2), tiny_corpus.tokenizer
    for one, message in ((TorchExportFile(), "--pt2"), (OnnxFile(), "--onnx"), (Int8TorchScriptFile(), "--quantize")):
        with pytest.raises(LinguistError, match=f"^{message}: a NGramModel"):
            one.write(counted, tokenizer, tmp_path / "x")
    model = build_model("rnn", tokenizer.vocab_size)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(LinguistError, match=r'pip install "torch-linguist\[onnx\]"'):
            OnnxFile().write(model, tokenizer, tmp_path / "x")
    with pytest.raises(LinguistError, match="cannot be written"):
        Int8TorchScriptFile().write(model, tokenizer, tmp_path / "no" / "x")
    monkeypatch.setattr(comparison, "compare", lambda *_: 0.5)
    with pytest.raises(LinguistError, match=r"differ from the model's by 0\.5 nats"):
        TorchExportFile().write(model, tokenizer, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_every_module_of_the_folder_is_a_format() -> None:
    names = [one.name for one in export_formats()]
    assert names == ["arpa", "gguf", "hf", "jit", "onnx", "pt2", "safetensors", "gguf-f16", "gguf-q8_0", "int8"]
    assert [one.name for one in export_formats() if not one.is_exact] == names[-3:]
    assert len({one.file_name for one in export_formats()}) == len(names)


def test_a_format_of_two_methods_is_written_checked_and_measured(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    class Plain(CheckedFile):
        name, file_name, help, description = "plain", "model.plain", "weights alone", "weights"
        noise = 0.0

        def serialize(self, network: nn.Module, tokenizer: Tokenizer, settings: Mapping[str, Any]) -> bytes:
            buffer = io.BytesIO()
            torch.save(network.state_dict(), buffer)
            return buffer.getvalue()

        def load(self, path: Path, network: nn.Module) -> Any:
            other = build_model("gru", tokenizer.vocab_size)
            other.load_state_dict(torch.load(path, weights_only=True))
            with torch.no_grad():
                other.get_parameter("output.bias")[3] += self.noise
            return other

    tokenizer, path = tiny_corpus.tokenizer, tmp_path / "model.plain"
    model = build_model("gru", tokenizer.vocab_size).train()
    file = export_file(Plain(), model, tokenizer, path, stream=tiny_corpus.test, max_tokens=50)
    assert model.training
    assert file.report.difference == 0
    assert file.report.mebibytes == path.stat().st_size / 2**20
    for fact in ("within 0 nats", "as the eager model's, on the first 50 tokens of test", "ms a token"):
        assert fact in file.facts
    Plain.noise = 0.1
    path.write_bytes(b"an older one")
    with pytest.raises(LinguistError, match="differ from the model's by"):
        Plain().write(model, tokenizer, path)
    assert path.read_bytes() == b"an older one"
    Plain.tolerance = 1.0
    with pytest.raises(LinguistError, match="its perplexity is"):
        export_file(Plain(), model, tokenizer, path, stream=tiny_corpus.test, max_tokens=50)
    assert not path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_a_full_disk_ends_in_one_line(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path) -> None:
    import resource

    path = tmp_path / "model.jit"
    model = build_model("lstm", tiny_corpus.tokenizer.vocab_size)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(LinguistError, match=r"model\.jit: cannot be written \(.*; free some space"):
            TorchScriptFile().write(model, tiny_corpus.tokenizer, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_the_card_says_what_is_known_and_nothing_else() -> None:
    assert "not scored" in model_card("m", {}, "tl-export", [])
    score = {"tokens": 1234, "perplexity": 56.789, "word_perplexity": 80.0, "bits_per_byte": 1.25, "oov_rate": 0.0123}
    summary = {"model": "gru", "data": "sotu", "tokenizer": "word", "test": score, "status": "interrupted", "seed": 7}
    report = ExportReport(Path("model.jit"), 0.0, 2.5, NGramModel(3, 1))
    files = [ExportedFile(TorchScriptFile(), report, "equal")]
    card = model_card("mine", summary, "tl-export mine --jit", files, "one\ntwo")
    assert "`model.jit` (2.5 MiB): TorchScript" in card
    for text in ("# mine", "| test | 1,234 | 56.79 | 80.00 | 1.2500 | 1.23% |", "status interrupted", "> one\n> two"):
        assert text in card
    assert "valid |" not in card
    assert "None" not in card
    hostile = model_card("a|b", {"data": "<script>\n# x", "command": "a`b"}, "c`d", [], "[x](y)")
    for text in ("# a\\|b", "\\<script\\> \\# x", "`a'b`", "`c'd`", "\\[x\\](y)"):
        assert text in hostile
