"""The exported file: runs where the package is not, equals the eager model, or is not there at all."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_linguist.data import TokenizedCorpus, Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.export import compare, export_jit, load_jit, perplexities
from torch_linguist.export.torchscript import ScriptedModel
from torch_linguist.generation import generate
from torch_linguist.model import LanguageModel, Mixture, NGramModel

ModelBuilder = Callable[..., LanguageModel]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("rnn", {"nonlinearity": "relu", "num_layers": 1}),
    ("lstm", {"output": "adaptive", "cutoffs": [10, 20], "tied": True, "dropout": 0.4}),
    ("gru", {"projection_size": 12, "output": "adaptive"}),
    ("transformer", {"tied": True, "dropout": 0.4, "output": "adaptive", "cutoffs": [10]}),
]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

STRANGER = """
import json, sys
sys.modules["torch_linguist"] = None
import torch
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    extra = {"tokenizer.json": "", "vocabulary.json": "", "settings.json": ""}
    model = torch.jit.load(folder + "/model.jit", _extra_files=extra)
    vocabulary = json.loads(extra["vocabulary.json"])
    assert len(vocabulary) == model.vocab_size
    given = json.load(open(folder + "/given.json"))
    results = []
    for calls in given:
        state = model.initial_state(len(calls[0]))
        for tokens in calls:
            logits, state = model(torch.tensor(tokens), state)
            results.append(torch.log_softmax(logits, -1).tolist())
    text = model.generate("the king sees", 12, 1.0, 0, 0.9, 5)
    found = {"results": results, "context_length": model.context_length, "text": text}
    found["greedy"] = model.generate("", 6, 0.0, stop_at_eos=True)
    json.dump(found, open(folder + "/found.json", "w"))
"""


def test_it_runs_where_the_package_is_not(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    tokenizer = tiny_corpus.tokenizer
    expected: dict[str, list[torch.Tensor]] = {}
    texts: dict[str, str] = {}
    for family, options in CASES:
        model = build_model(family, tokenizer.vocab_size, **options)
        model.prepare_vocabulary(torch.from_numpy(tiny_corpus.token_counts()))
        folder = tmp_path / family
        folder.mkdir()
        report = export_jit(model.train(), tokenizer, folder / "model.jit", {"lr": 0.5})
        assert model.training
        assert report.difference < 1e-4
        assert report.mebibytes == (folder / "model.jit").stat().st_size / 2**20
        generator = torch.Generator().manual_seed(1)
        given = [
            [torch.randint(tokenizer.vocab_size, (batch, length), generator=generator) for length in lengths]
            for batch, lengths in ((1, (1, 1, 20)), (5, (4, 9)), (2, (40, 1)))
        ]
        (folder / "given.json").write_text(json.dumps([[tokens.tolist() for tokens in calls] for calls in given]))
        expected[family] = []
        model.eval()
        # The same filters and the same draws: the same words.
        texts[family] = generate(model, tokenizer, "the king sees", max_tokens=12, top_p=0.9, seed=5)[0]
        with torch.no_grad():
            for calls in given:
                state = model.initial_state(len(calls[0]))
                for tokens in calls:
                    logits, state = model(tokens, state)
                    expected[family].append(torch.log_softmax(logits, -1))
    script = tmp_path / "stranger.py"
    script.write_text(STRANGER)
    done = subprocess.run(
        [sys.executable, "-I", str(script), *(str(tmp_path / family) for family, _ in CASES)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for family, _ in CASES:
        found = json.loads((tmp_path / family / "found.json").read_text())
        assert found["context_length"] == (8 if family == "transformer" else 0)
        assert found["text"] == texts[family]
        assert "\n" not in found["greedy"]
        for one, other in zip(found["results"], expected[family], strict=True):
            torch.testing.assert_close(torch.tensor(one), other, atol=1e-5, rtol=0)


def test_the_file_holds_what_reading_its_numbers_takes(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    tokenizer = tiny_corpus.tokenizer
    settings = {"model": "lstm", "lr": 0.01, "valid": {"word_perplexity": math.inf, "loss": 2.5}, "name": "é"}
    export_jit(build_model("lstm", tokenizer.vocab_size), tokenizer, tmp_path / "m.jit", settings)
    extra: dict[str, Any] = {"tokenizer.json": "", "vocabulary.json": "", "settings.json": ""}
    torch.jit.load(tmp_path / "m.jit", _extra_files=extra)  # type: ignore[no-untyped-call]
    assert json.loads(extra["vocabulary.json"]) == tokenizer.tokens
    text = extra["tokenizer.json"]
    again = Tokenizer.from_json(text if isinstance(text, str) else text.decode())
    assert again.encode("the king sees") == tokenizer.encode("the king sees")
    found = json.loads(extra["settings.json"], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["vocab_size"] == tokenizer.vocab_size
    assert (found["eos_id"], found["unk_id"], found["lr"], found["name"]) == (0, 1, 0.01, "é")
    assert found["valid"] == {"word_perplexity": None, "loss": 2.5}


def test_an_export_that_differs_is_thrown_away(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model("lstm", tiny_corpus.tokenizer.vocab_size).train()
    (tmp_path / "model.jit").write_bytes(b"an older one")
    script = torch.jit.script

    def wrong(module: Any, **options: Any) -> Any:
        # The compiler calls itself for the functions that it meets.
        if not isinstance(module, ScriptedModel):
            return script(module, **options)
        other = build_model("lstm", tiny_corpus.tokenizer.vocab_size)
        with torch.no_grad():
            other.get_parameter("output.bias")[3] += 0.01
        return script(ScriptedModel(other, tiny_corpus.tokenizer))

    monkeypatch.setattr(torch.jit, "script", wrong)
    with pytest.raises(LinguistError, match=r"model\.jit: .*differ.*deleted"):
        export_jit(model, tiny_corpus.tokenizer, tmp_path / "model.jit")
    assert [path.name for path in tmp_path.iterdir()] == ["model.jit"]
    assert (tmp_path / "model.jit").read_bytes() == b"an older one"
    assert model.training


def test_weights_that_are_not_finite_are_no_export(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    model = build_model("lstm", tiny_corpus.tokenizer.vocab_size)
    with torch.no_grad():
        model.get_parameter("output.bias").fill_(math.nan)
    with pytest.raises(LinguistError, match="differ"):
        export_jit(model, tiny_corpus.tokenizer, tmp_path / "model.jit")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    model = build_model("rnn", tiny_corpus.tokenizer.vocab_size)
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "no" / "model.jit", tmp_path / "folder"):
        with pytest.raises(LinguistError, match="cannot be written"):
            export_jit(model, tiny_corpus.tokenizer, place)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_compare_measures_the_largest_difference(build_model: ModelBuilder) -> None:
    model, other = build_model("gru", 20), build_model("gru", 20)
    assert compare(model, other) == 0
    with torch.no_grad():
        other.get_parameter("output.bias")[4] += 0.5
    with torch.no_grad():
        logits = model(torch.zeros(1, 1, dtype=torch.int64), model.initial_state(1))[0]
    share = float(torch.softmax(logits, -1)[0, 0, 4])
    expected = 0.5 - math.log(1 + share * (math.exp(0.5) - 1))
    assert compare(model, other) == pytest.approx(expected, abs=0.02)


def test_counted_and_mixed_models_are_files_too(
    build_model: ModelBuilder, tiny_corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    tokenizer = tiny_corpus.tokenizer
    ngram = NGramModel(tokenizer.vocab_size, 3)
    ngram.fit_counts(tiny_corpus.train.ids, tokenizer.eos_id)
    mixture = Mixture([ngram, build_model("lstm", tokenizer.vocab_size)], [0.4, 0.6]).eval()
    for name, model in (("ngram", ngram), ("mixture", mixture)):
        path = tmp_path / f"{name}.jit"
        assert export_jit(model, tokenizer, path).difference < 1e-5
        loaded = load_jit(path)
        eager, other = perplexities(model, loaded.model, tiny_corpus.test, 150)
        assert other == pytest.approx(eager, rel=1e-5)
        said = generate(model, tokenizer, "the old", max_tokens=6, greedy=True)[0]
        assert loaded.model.module.generate("the old", 6, 0.0).strip("\n") == said
