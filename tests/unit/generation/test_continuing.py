"""From prompt to text: streams, stops, beams and suggestions, against slow references."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.data import (
    BPETokenizerTrainer,
    InMemoryCorpus,
    TokenizedCorpus,
    Tokenizer,
    WordTokenizerTrainer,
    prepare,
)
from torch_linguist.data.tokenizers.character import CharTokenizerTrainer
from torch_linguist.data.tokenizers.tokenizer_trainer import TokenizerTrainer
from torch_linguist.errors import LinguistError
from torch_linguist.generation import Sampling, Suggester, TextStream, beam_search, continue_prompt, generate_ids
from torch_linguist.generation.continuing import continue_by_beam
from torch_linguist.generation.decoding import PROMPT_CHUNK
from torch_linguist.model import LanguageModel, NGramModel

ModelBuilder = Callable[..., LanguageModel]
KINDS: dict[str, TokenizerTrainer] = {
    "word": WordTokenizerTrainer(min_frequency=1),
    "bpe": BPETokenizerTrainer(vocab_size=300),
    "char": CharTokenizerTrainer(),
}


@pytest.fixture(scope="module")
def tokenizers(source_corpus: InMemoryCorpus) -> dict[str, Tokenizer]:
    return {kind: trainer.train(source_corpus) for kind, trainer in KINDS.items()}


@settings(deadline=None)
@given(data=st.data())
def test_a_stream_adds_up_to_the_decoded_text(tokenizers: dict[str, Tokenizer], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["word", "bpe", "char"]))
    tokenizer = tokenizers[kind]
    if kind == "bpe":
        # Any text, so that characters of several bytes are cut between tokens.
        ids = tokenizer.encode(data.draw(st.text(max_size=20)))
    else:
        ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=20))
    stream = TextStream(tokenizer)
    assert "".join([stream.push(token) for token in ids] + [stream.finish()]) == tokenizer.decode(ids)


def test_pieces_are_reported_at_once(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    told: list[list[str]] = [[], [], []]
    model = build_model("gru", tiny_corpus.tokenizer.vocab_size)
    with torch.no_grad():
        model.get_parameter("output.bias")[tiny_corpus.tokenizer.unk_id] += 5  # Probable, and never written.
    found = continue_prompt(
        model, tiny_corpus.tokenizer, "the king", Sampling(),
        max_tokens=15, num_samples=3, seed=1, alternatives=4, listener=lambda row, piece: told[row].append(piece),
    )  # fmt: skip
    assert ["".join(pieces) for pieces in told] == [one.new_text for one in found]
    assert all(len(pieces) > 5 for pieces in told)
    for one in found:
        assert (one.reason, len(one.ids), len(one.choices)) == ("length", 15, 15)
        assert sum(math.log(choice.probability) for choice in one.choices) == pytest.approx(one.log_probability)
        for choice in one.choices:
            probabilities = [probability for _, probability in choice.alternatives]
            assert probabilities == sorted(probabilities, reverse=True)
            assert len(choice.alternatives) == 4
            assert "<unk>" not in [choice.token, *(token for token, _ in choice.alternatives)]
            assert choice.probability <= probabilities[0] + 1e-6


def test_a_sample_is_the_same_alone_and_stops_alone(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    model, tokenizer = build_model("lstm", tiny_corpus.tokenizer.vocab_size), tiny_corpus.tokenizer
    whole = continue_prompt(model, tokenizer, "the", Sampling(), max_tokens=30, num_samples=4, seed=3)
    words = [one.new_text for one in whole]
    wanted = words[0].split()[5]
    told: list[str] = ["", "", "", ""]

    def listen(row: int, piece: str) -> None:
        told[row] += piece

    cut = continue_prompt(
        model, tokenizer, "the", Sampling(), max_tokens=30, num_samples=4, seed=3, stop=[wanted, "nowhere"],
        listener=listen,
    )  # fmt: skip
    for before, after, heard in zip(whole, cut, told, strict=True):
        place = before.new_text.find(wanted)
        assert after.new_text == (before.new_text[:place] if place >= 0 else before.new_text)
        assert after.reason == ("stop" if place >= 0 else "length")
        # Nothing of the text to stop at is shown, not even its first letters.
        assert heard == after.new_text
    assert cut[0].reason == "stop"


def test_a_line_ends_at_eos(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    model, tokenizer = build_model("gru", tiny_corpus.tokenizer.vocab_size), tiny_corpus.tokenizer
    with torch.no_grad():
        model.get_parameter("output.bias")[tokenizer.eos_id] = 2.0
    found = continue_prompt(model, tokenizer, "the", Sampling(), num_samples=8, seed=0, stop_at_eos=True)
    assert {one.reason for one in found} == {"eos"}
    assert all(one.ids.count(tokenizer.eos_id) == 1 and one.ids[-1] == tokenizer.eos_id for one in found)
    assert all("\n" not in one.text for one in found)


def test_a_long_prompt_is_read_in_chunks_without_a_difference(build_model: ModelBuilder) -> None:
    model = build_model("lstm", 30)
    prompt = torch.randint(30, (PROMPT_CHUNK + 40,), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.no_grad():
        expected = int(model(torch.tensor([prompt]), model.initial_state(1))[0][0, -1].argmax())
    assert generate_ids(model, prompt, max_tokens=1, sampling=Sampling(greedy=True)) == [[expected]]
    for wrong in ([], [30], [-1]):
        with pytest.raises(LinguistError, match=r"^prompt: "):
            generate_ids(model, wrong, max_tokens=1)


@pytest.mark.parametrize("family", ["lstm", "transformer", "ngram"])
def test_a_wide_beam_finds_the_best_of_all(family: str, build_model: ModelBuilder) -> None:
    size, length, eos = 5, 4, 0
    if family == "ngram":
        model: LanguageModel = NGramModel(size, 3)
        model.fit_counts(torch.randint(size, (200,), generator=torch.Generator().manual_seed(2)).numpy(), eos)
    else:
        model = build_model(family, size)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)
    scored: dict[tuple[int, ...], float] = {}
    for ids in itertools.product(range(size), repeat=length):
        cut = ids[: ids.index(eos) + 1] if eos in ids else ids
        if 3 in cut or cut in scored:
            continue
        with torch.no_grad():
            logits, _ = model(torch.tensor([[eos, 2, *cut[:-1]]]), model.initial_state(1))
        rows = torch.log_softmax(logits[0, 1:].double(), -1)
        scored[cut] = float(sum(rows[place, token] for place, token in enumerate(cut)))
    for penalty in (0.0, 1.0):
        ranked = sorted(scored, key=lambda ids, power=penalty: -scored[ids] / len(ids) ** power)  # type: ignore[misc]
        found = beam_search(
            model, [eos, 2], beams=300, max_tokens=length, stop=[eos], banned=[3], length_penalty=penalty
        )
        assert [tuple(one.ids) for one in found[:6]] == ranked[:6]
        for one in found:
            assert one.log_probability == pytest.approx(scored[tuple(one.ids)], abs=1e-4)
            assert one.ended == (one.ids[-1] == eos)
    # One beam is greedy.
    narrow = beam_search(model, [eos, 2], beams=1, max_tokens=length, banned=[3])
    assert [narrow[0].ids] == generate_ids(
        model, [eos, 2], max_tokens=length, sampling=Sampling(greedy=True), banned=[3]
    )


def test_beams_become_text(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    model = build_model("gru", tiny_corpus.tokenizer.vocab_size)
    found = continue_by_beam(model, tiny_corpus.tokenizer, "the king", beams=3, max_tokens=4)
    assert len({one.text for one in found}) == 3
    assert [one.log_probability for one in found] == sorted((one.log_probability for one in found), reverse=True)
    assert all(one.text.startswith("the king") for one in found)


@pytest.mark.parametrize("kind", ["word", "bpe", "char"])
def test_suggestions_are_the_words_that_follow(kind: str, source_corpus: InMemoryCorpus) -> None:
    corpus = prepare(source_corpus, KINDS[kind])
    model = NGramModel(corpus.tokenizer.vocab_size, 3 if kind == "word" else 8)
    model.fit_counts(corpus.train.ids, corpus.tokenizer.eos_id)
    suggester = Suggester(model, corpus.tokenizer)
    # Only these words follow "the old" and "the" in the grammar.
    assert suggester.suggest("the old ")[0].word == "farmer"
    first = {one.word for one in suggester.suggest("every sailor sees the ", count=2)}
    assert first <= {"river", "blue", "road"}
    half = suggester.suggest("the old far")
    assert (half[0].word, half[0].completion) == ("farmer", "mer")
    assert half[0].probability > 0.9
    beginning = {one.word for one in suggester.suggest("", count=6)}
    assert beginning & {"the", "a", "my", "every"}
    assert "<unk>" not in beginning | {"" if kind == "word" else "<unk"}
    if kind != "bpe":  # Bytes can spell any word.
        assert suggester.suggest("the old fxq") == []


def test_word_suggestions_are_the_most_probable_ones(build_model: ModelBuilder, tiny_corpus: TokenizedCorpus) -> None:
    tokenizer = tiny_corpus.tokenizer
    model = build_model("lstm", tokenizer.vocab_size)
    ids = [tokenizer.eos_id, *tokenizer.encode("the king")]
    with torch.no_grad():
        row = torch.softmax(model(torch.tensor([ids]), model.initial_state(1))[0][0, -1], -1).tolist()
    ranked = sorted(range(len(row)), key=lambda token: -row[token])
    expected = [(tokenizer.tokens[token], row[token]) for token in ranked if token > 1][:7]
    found = Suggester(model, tokenizer).suggest("the king ", count=7)
    assert [one.word for one in found] == [word for word, _ in expected]
    assert [one.probability for one in found] == pytest.approx([one for _, one in expected], rel=1e-4)
