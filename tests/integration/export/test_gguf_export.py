"""`tl-export --gguf`: what llama.cpp computes from the file equals what the model computes.

llama-cpp-python compiles llama.cpp, which takes half an hour on two cores. To run the tests that need it:
`pip install "torch-linguist[gguf]" llama-cpp-python`, then
`pytest -m integrations tests/integration/export/test_gguf_export.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torch_linguist.data import BPETokenizerTrainer, InMemoryCorpus, TokenizedCorpus, Tokenizer, prepare
from torch_linguist.errors import LinguistError
from torch_linguist.export import export_file, export_formats
from torch_linguist.generation.decoding import generate_ids
from torch_linguist.generation.sampling import Sampling
from torch_linguist.model import LanguageModel

pytest.importorskip("gguf", reason='needs pip install "torch-linguist[gguf]"')
pytestmark = pytest.mark.integrations

ModelBuilder = Callable[..., LanguageModel]
FORMATS = {one.name: one for one in export_formats()}
HARD = [
    "the café, naïve — “quotes” don't we'll",
    "a\n\nb\n  c  \n d ",
    "😀 👩‍👩‍👧 12345.67 3,000 ½",
    "   many   blanks\t\ttabs\u00a0hard \u2028 x",
    "x <unk> y<unk>z",
    "\n",
    "Ċ ÿ Ġ \r\n",
]
SIZES: dict[str, Any] = {"output_bias": False, "embedding_dim": 64, "num_heads": 4, "context_length": 64, "tied": True}


@pytest.fixture(scope="module")
def corpus(source_corpus: InMemoryCorpus, own_cache: Path) -> TokenizedCorpus:
    return prepare(source_corpus, BPETokenizerTrainer(vocab_size=320), own_cache)


@pytest.fixture
def model(corpus: TokenizedCorpus, build_model: ModelBuilder) -> LanguageModel:
    return sharpened(build_model("transformer", corpus.tokenizer.vocab_size, **SIZES))


def sharpened(model: LanguageModel) -> LanguageModel:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model


def check_in_llama(path: Path, model: LanguageModel, tokenizer: Tokenizer, tolerance: float) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs pip install llama-cpp-python, which compiles long")
    # By default llama.cpp keeps keys and values in float16.
    llama = llama_cpp.Llama(str(path), n_ctx=64, logits_all=True, verbose=False, type_k=0, type_v=0)
    for text in HARD:
        assert llama.tokenize(text.encode(), add_bos=True, special=False) == [tokenizer.eos_id, *tokenizer.encode(text)]
    tokens = [tokenizer.eos_id, *torch.randint(2, 250, (40,), generator=torch.Generator().manual_seed(0)).tolist()]
    llama.reset()
    llama.eval(tokens)
    with torch.no_grad():
        ours = model(torch.tensor([tokens]), model.initial_state(1))[0][0].numpy()
    assert float(np.abs(llama.scores[: len(tokens)] - ours).max()) < tolerance
    prompt = [tokenizer.eos_id, *tokenizer.encode("the sailor")]
    llama.reset()
    steps = llama.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0)
    continued = [next(steps) for _ in range(30)]
    assert continued == generate_ids(model, prompt, max_tokens=30, sampling=Sampling(greedy=True))[0]


@pytest.mark.parametrize("options", [{}, {"tied": False, "num_key_value_heads": 2, "rotary_base": 500.0}])
def test_float32_equals_the_model(
    options: dict[str, Any], corpus: TokenizedCorpus, build_model: ModelBuilder, tmp_path: Path
) -> None:
    model = sharpened(build_model("transformer", corpus.tokenizer.vocab_size, **(SIZES | options)))
    path = tmp_path / "model.gguf"
    exported = export_file(FORMATS["gguf"], model, corpus.tokenizer, path, stream=corpus.streams["test"])
    assert exported.report.difference == 0
    check_in_llama(path, model, corpus.tokenizer, 1e-3)


@pytest.mark.parametrize(("name", "loss"), [("gguf-f16", 5e-3), ("gguf-q8_0", 0.1)])
def test_smaller_numbers_lose_little(
    name: str, loss: float, model: LanguageModel, corpus: TokenizedCorpus, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    exported = export_file(FORMATS[name], model, corpus.tokenizer, path, stream=corpus.streams["test"])
    assert "before" in exported.facts
    tokens = torch.randint(model.vocab_size, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = (
            torch.log_softmax(one(tokens, one.initial_state(2))[0], -1) for one in (model, exported.report.model)
        )
    assert 0 < float((ours - theirs).abs().mean()) < loss
    full = tmp_path / "full.gguf"
    FORMATS["gguf"].write(model, corpus.tokenizer, full)
    assert path.stat().st_size < 0.7 * full.stat().st_size
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs pip install llama-cpp-python, which compiles long")
    llama = llama_cpp.Llama(str(path), n_ctx=64, logits_all=True, verbose=False)
    llama.eval(tokens[0].tolist())
    found = torch.log_softmax(torch.from_numpy(llama.scores[:30]), -1)
    assert float((found - theirs[0]).abs().mean()) < loss


def test_what_llama_cpp_has_no_form_for_is_named(
    corpus: TokenizedCorpus, tiny_corpus: TokenizedCorpus, build_model: ModelBuilder, tmp_path: Path
) -> None:
    size = corpus.tokenizer.vocab_size
    cases = [
        (build_model("lstm", size), corpus.tokenizer, r"no form as Llama or Mistral"),
        (build_model("transformer", size), corpus.tokenizer, r"model\.output_bias=true.*model\.output_bias=false"),
        (
            build_model("transformer", size, output_bias=False, activation="gelu"),
            corpus.tokenizer,
            r"model\.activation=gelu.*model\.activation=swiglu",
        ),
        (
            build_model("transformer", tiny_corpus.tokenizer.vocab_size, output_bias=False),
            tiny_corpus.tokenizer,
            r"tokenizer=word; train with tokenizer=bpe, or export with --hf",
        ),
    ]
    for model, tokenizer, message in cases:
        with pytest.raises(LinguistError, match=message):
            FORMATS["gguf"].write(model, tokenizer, tmp_path / "x.gguf")
    narrow = build_model("transformer", size, output_bias=False)
    with pytest.raises(LinguistError, match=r"not a multiple of 32; use --quantize gguf-f16"):
        FORMATS["gguf-q8_0"].write(narrow, corpus.tokenizer, tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())
