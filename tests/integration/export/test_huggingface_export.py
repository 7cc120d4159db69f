"""`tl-export --hf`: what `transformers` computes from the folder equals what the model computes."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torch_linguist.checkpoint.init_from import starting_point
from torch_linguist.data import (
    BPETokenizerTrainer,
    InMemoryCorpus,
    TokenizedCorpus,
    Tokenizer,
    WordTokenizerTrainer,
    prepare,
)
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation import stream_nll
from torch_linguist.export import export_file, export_formats
from torch_linguist.generation.decoding import generate_ids
from torch_linguist.generation.sampling import Sampling
from torch_linguist.model import LanguageModel, Mixture

transformers = pytest.importorskip("transformers", reason='needs pip install "torch-linguist[hf]"')
pytestmark = pytest.mark.integrations

ModelBuilder = Callable[..., LanguageModel]
HF = next(one for one in export_formats() if one.name == "hf")
HARD = ["the café\n\n 12 zebras 😀 don't", "", "  a\t\tb \n", "x <unk> y", "\u00a0 naïve — “quotes” 3.14"]
STOCK: list[dict[str, Any]] = [
    {"tied": True},
    {"tied": False, "num_key_value_heads": 1, "rotary_base": 300.0},
    {"tied": True, "output": "sampled", "num_layers": 3},
]


@pytest.fixture(scope="module", params=["word", "bpe"])
def corpus(request: pytest.FixtureRequest, source_corpus: InMemoryCorpus, own_cache: Path) -> TokenizedCorpus:
    trainer = WordTokenizerTrainer() if request.param == "word" else BPETokenizerTrainer(vocab_size=300)
    return prepare(source_corpus, trainer, own_cache)


def sharpened(model: LanguageModel) -> LanguageModel:
    """The model with larger weights, so that its predictions differ clearly."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model


def greedy(model: LanguageModel, tokenizer: Tokenizer, prompt: list[int], tokens: int) -> list[int]:
    return generate_ids(model, prompt, max_tokens=tokens, sampling=Sampling(greedy=True), banned=[tokenizer.unk_id])[0]


def check_folder(folder: Path, model: LanguageModel, tokenizer: Tokenizer) -> Any:
    """Compare ids, logits and greedy continuations; return the loaded model."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    for text in HARD:
        assert words(text)["input_ids"] == [tokenizer.eos_id, *tokenizer.encode(text)]
    assert (words.eos_token_id, words.bos_token_id) == (tokenizer.eos_id, tokenizer.eos_id)
    assert words.unk_token_id == tokenizer.unk_id
    tokens = torch.randint(model.vocab_size, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = torch.log_softmax(model(tokens, model.initial_state(2))[0], -1)
        assert float((torch.log_softmax(theirs(tokens).logits, -1) - ours).abs().max()) < 1e-4
    prompt = words("the sailor", return_tensors="pt")
    continued = theirs.generate(**prompt, max_new_tokens=40)[0].tolist()
    ids = prompt["input_ids"][0].tolist()
    assert continued == ids + greedy(model, tokenizer, ids, 40)
    return theirs


@pytest.mark.parametrize("options", STOCK)
def test_a_transformer_becomes_a_stock_architecture(
    options: dict[str, Any], corpus: TokenizedCorpus, build_model: ModelBuilder, tmp_path: Path
) -> None:
    chosen = {"output_bias": False, "context_length": 6} | options
    model = sharpened(build_model("transformer", corpus.tokenizer.vocab_size, **chosen))
    exported = export_file(HF, model, corpus.tokenizer, tmp_path / "out", stream=corpus.streams["test"])
    assert "as the eager model's" in exported.facts
    folder = tmp_path / "out"
    theirs = check_folder(folder, model, corpus.tokenizer)
    assert type(theirs).__name__ == "MistralForCausalLM"
    assert not list(folder.glob("*.py"))
    # Perplexity of transformers itself, as one long pass, against that of the package with windows.
    ids = torch.from_numpy(corpus.streams["test"].ids.astype(np.int64))[None]
    text = torch.cat([torch.tensor([[corpus.tokenizer.eos_id]]), ids], dim=1)
    with torch.no_grad():
        loss = float(theirs(text, labels=text).loss)
    whole, _ = model.nll(text[:, :-1], text[:, 1:], model.initial_state(1))
    assert loss == pytest.approx(float(whole.detach().mean()), rel=1e-5)
    # Within one window it is Llama.
    llama = transformers.LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        torch.testing.assert_close(llama(text[:, :6]).logits, theirs(text[:, :6]).logits, atol=1e-4, rtol=0)
    # And it comes back.
    start = starting_point(f"hf:{folder}")
    assert start.tokenizer is not None
    again = start.family(vocab_size=model.vocab_size, **start.arguments, dropout=0.0, output="full").eval()
    start.load(again, start.tokenizer)
    assert start.tokenizer.tokens == corpus.tokenizer.tokens
    for name, weight in again.named_parameters():
        assert torch.equal(weight, model.state_dict()[name])


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("lstm", {}),
        ("gru", {"output": "adaptive", "cutoffs": [20]}),
        ("rnn", {"output": "sampled"}),
        ("transformer", {"activation": "gelu"}),
        ("transformer", {"output_bias": True, "tied": True}),
    ],
)
def test_other_models_bring_their_code(
    family: str, options: dict[str, Any], corpus: TokenizedCorpus, build_model: ModelBuilder, tmp_path: Path
) -> None:
    model = sharpened(build_model(family, corpus.tokenizer.vocab_size, **options))
    with warnings.catch_warnings():
        # The folder holds TorchScript, which PyTorch deprecates at each call.
        warnings.simplefilter("error", DeprecationWarning)
        export_file(HF, model, corpus.tokenizer, tmp_path / "out", stream=corpus.streams["test"])
    theirs = check_folder(tmp_path / "out", model, corpus.tokenizer)
    assert "trust_remote_code=True" in (tmp_path / "out" / "README.md").read_text()
    # Texts of different lengths in one batch, and beams, give what each text gives alone.
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = words(["the sailor", "a b c d e"], return_tensors="pt", padding=True)
    rows = theirs.generate(**batch, max_new_tokens=8)
    for text, row in zip(["the sailor", "a b c d e"], rows, strict=True):
        alone = theirs.generate(**words(text, return_tensors="pt"), max_new_tokens=8)[0]
        assert row[-8:].tolist() == alone[-8:].tolist()
    assert theirs.generate(**batch, max_new_tokens=3, num_beams=3).shape == (2, batch["input_ids"].shape[1] + 3)
    theirs.save_pretrained(tmp_path / "again")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again", trust_remote_code=True)
    with torch.no_grad():
        assert torch.equal(again(batch["input_ids"]).logits, theirs(batch["input_ids"]).logits)


def test_counted_models_and_mixtures_bring_their_code(
    tiny_corpus: TokenizedCorpus, build_model: ModelBuilder, tmp_path: Path
) -> None:
    from torch_linguist.model import NGramModel

    tokenizer = tiny_corpus.tokenizer
    counted = NGramModel(tokenizer.vocab_size, order=3)
    counted.fit_counts(tiny_corpus.train.ids, tokenizer.eos_id)
    mixture = Mixture([counted, build_model("lstm", tokenizer.vocab_size)], [0.5, 0.5]).eval()
    for name, model in (("ngram", counted.eval()), ("mixture", mixture)):
        export_file(HF, model, tokenizer, tmp_path / name, stream=tiny_corpus.streams["test"])
        check_folder(tmp_path / name, model, tokenizer)


def test_the_pipeline_writes_text(tiny_corpus: TokenizedCorpus, build_model: ModelBuilder, tmp_path: Path) -> None:
    tokenizer = tiny_corpus.tokenizer
    for name, family, options in (("stock", "transformer", {"output_bias": False}), ("code", "lstm", {})):
        model = sharpened(build_model(family, tokenizer.vocab_size, **options))
        HF.write(model, tokenizer, tmp_path / name)
        pipe = transformers.pipeline("text-generation", str(tmp_path / name), trust_remote_code=True)
        written = pipe("the sailor", max_new_tokens=12, skip_special_tokens=False)[0]["generated_text"]
        ids = greedy(model, tokenizer, [tokenizer.eos_id, *tokenizer.encode("the sailor")], 12)
        assert "".join(written.split()) == "".join(f"the sailor {tokenizer.decode(ids, detokenize=False)}".split())
        assert written.startswith("the sailor")
        assert not written[len("the sailor")].isalnum()


def test_a_folder_is_replaced_whole_or_not_at_all(
    tiny_corpus: TokenizedCorpus, build_model: ModelBuilder, tmp_path: Path
) -> None:
    tokenizer = tiny_corpus.tokenizer
    model = build_model("transformer", tokenizer.vocab_size, output_bias=False)
    folder = tmp_path / "out"
    HF.write(model, tokenizer, folder, {"model": "gpt"})
    assert json.loads((folder / "generation_config.json").read_text())["suppress_tokens"] == [tokenizer.unk_id]
    before = (folder / "model.safetensors").read_bytes()
    broken = build_model("transformer", tokenizer.vocab_size, output_bias=False)
    torch.nn.init.constant_(next(broken.parameters()), torch.nan)
    with pytest.raises(LinguistError, match="differ from the model's by nan"):
        HF.write(broken, tokenizer, folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(LinguistError, match="exists and holds no exported model"):
        HF.write(model, tokenizer, tmp_path / "mine")


@pytest.mark.parametrize("family", ["lstm", "transformer", "ngram"])
def test_safetensors_holds_the_weights(
    family: str, tiny_corpus: TokenizedCorpus, build_model: ModelBuilder, tmp_path: Path
) -> None:
    from safetensors import safe_open

    form = next(one for one in export_formats() if one.name == "safetensors")
    tokenizer = tiny_corpus.tokenizer
    if family == "ngram":
        from torch_linguist.model import NGramModel

        model: LanguageModel = NGramModel(tokenizer.vocab_size, order=3)
        model.fit_counts(tiny_corpus.train.ids, tokenizer.eos_id)
    else:
        model = build_model(family, tokenizer.vocab_size, tied=True, embedding_dim=16)
    path = tmp_path / "model.safetensors"
    report = form.write(model.eval(), tokenizer, path)
    assert report.difference == 0
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        assert json.loads(metadata["model"])["target"].endswith(type(model).__name__)
        assert Tokenizer.from_json(metadata["tokenizer.json"]).tokens == tokenizer.tokens
    total = sum(float(part.sum()) for part in stream_nll(report.model, tiny_corpus.streams["test"]))
    expected = sum(float(part.sum()) for part in stream_nll(model, tiny_corpus.streams["test"]))
    assert total == pytest.approx(expected)
