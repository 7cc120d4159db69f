"""Continuations: what is drawn, from what, and what is left alone."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from torch_linguist.data import TokenizedCorpus, Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.generation import Sampling, draw, generate, generate_ids
from torch_linguist.model import LanguageModel

ModelBuilder = Callable[..., LanguageModel]
V = 30


def sharp(model: LanguageModel) -> LanguageModel:
    """The model with opinions: its weights made larger."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


@pytest.mark.parametrize("family", ["rnn", "lstm", "gru", "transformer"])
def test_greedy_is_the_argmax_after_the_whole_prefix(family: str, build_model: ModelBuilder) -> None:
    model = sharp(build_model(family, V, context_length=64) if family == "transformer" else build_model(family, V))
    ids = [0, 5, 9]
    for _ in range(12):
        with torch.no_grad():
            logits = model(torch.tensor([ids]), model.initial_state(1))[0][0, -1]
        logits[3] = -math.inf
        ids.append(int(logits.argmax()))
    assert (
        generate_ids(model, [0, 5, 9], max_tokens=12, sampling=Sampling(greedy=True), banned=[3], num_samples=2)
        == [ids[3:]] * 2
    )


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    rows = logits.repeat(20_000, 1)
    for temperature, top_k in ((1.0, 0), (0.5, 0), (2.0, 2), (1.0, 4), (1.0, 99)):
        drawn = draw(rows, Sampling(temperature, top_k), torch.Generator().manual_seed(0)).squeeze(1)
        expected = np.exp(logits.double().numpy() / temperature)
        if 0 < top_k < 4:
            expected[np.argsort(-logits.numpy())[top_k:]] = 0
        measured = torch.bincount(drawn, minlength=4).double().numpy() / len(rows)
        np.testing.assert_allclose(measured, expected / expected.sum(), atol=0.015)
        assert (measured[expected == 0] == 0).all()


@pytest.mark.parametrize("temperature", [1e-45, 1e-10, 1e30])
def test_no_temperature_breaks_the_draw(temperature: float) -> None:
    logits = torch.tensor([[50.0, -torch.inf, 60.0, 3.0]])
    drawn = {int(draw(logits, Sampling(temperature), torch.Generator().manual_seed(seed))) for seed in range(20)}
    assert drawn == {2} if temperature < 1 else 1 not in drawn


def test_a_seed_says_it_all_and_no_seed_says_nothing(build_model: ModelBuilder) -> None:
    model = build_model("lstm", V)

    def drawn(seed: int | None) -> list[list[int]]:
        torch.manual_seed(0)
        return generate_ids(model, [0], max_tokens=20, num_samples=3, seed=seed)

    first = drawn(4)
    assert first == drawn(4)
    assert first != drawn(5)
    assert len({tuple(row) for row in first}) == 3
    # Not even torch's own seed repeats an unseeded one.
    assert drawn(None) != drawn(None)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("training", [True, False])
def test_randomness_and_mode_stay_as_they_are(
    seed: int | None, training: bool, build_model: ModelBuilder, tiny_corpus: TokenizedCorpus
) -> None:
    model = build_model("gru", tiny_corpus.tokenizer.vocab_size, dropout=0.5).train(training)
    before = torch.get_rng_state()
    generate(model, tiny_corpus.tokenizer, "the king", max_tokens=5, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training is training


def test_text_comes_with_its_prompt_and_without_unk(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    tokenizer: Tokenizer = tiny_corpus.tokenizer
    model = build_model("lstm", tokenizer.vocab_size)
    with torch.no_grad():
        model.get_parameter("output.bias")[tokenizer.unk_id] = 40.0
    texts = generate(model, tokenizer, "the king sees", max_tokens=8, num_samples=3, seed=1)
    assert len(texts) == 3
    for text in texts:
        assert text.startswith("the king sees")
        assert "<unk>" not in text
        assert "<eos>" not in text
    assert generate(model, tokenizer, "", max_tokens=3, seed=1)[0].strip("\n")


def test_a_prompt_longer_than_the_context(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    model = build_model("transformer", tiny_corpus.tokenizer.vocab_size, context_length=4)
    prompt = "the king sees the river today . " * 3
    assert generate(model, tiny_corpus.tokenizer, prompt, max_tokens=6, seed=1)[0].startswith("the king sees")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"temperature": math.inf}, "temperature=inf"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"top_k": -1}, "top_k=-1"),
    ],
)
def test_wrong_options_are_named(
    options: dict[str, float], names: str, build_model: ModelBuilder, tiny_corpus: TokenizedCorpus
) -> None:
    model = build_model("rnn", tiny_corpus.tokenizer.vocab_size)
    with pytest.raises(LinguistError, match=names):
        generate(model, tiny_corpus.tokenizer, **options)  # type: ignore[arg-type]
