"""Weights of a trained model for another one: with the same vocabulary, with another, and from word vectors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_linguist.checkpoint.transfer import transfer_weights
from torch_linguist.data import InMemoryCorpus, Tokenizer, WordTokenizerTrainer
from torch_linguist.data.word_vectors import read_word_vectors
from torch_linguist.errors import DataError, LinguistError
from torch_linguist.model import LSTM, LanguageModel, Transformer
from torch_linguist.trainer.initialization import WordVectors, start_from_vectors

ModelBuilder = Callable[..., LanguageModel]


def tokenizer_of(text: str) -> Tokenizer:
    corpus = InMemoryCorpus({"train": [text], "valid": ["a"], "test": ["a"]}, tokenized=True)
    return WordTokenizerTrainer(min_frequency=1).train(corpus)


OLD, NEW = tokenizer_of("the cat sat on the mat"), tokenizer_of("the dog sat on the cat and mat")


@pytest.mark.parametrize(("family", "output"), [(LSTM, "sampled"), (LSTM, "full"), (Transformer, "full")])
@pytest.mark.parametrize("tied", [True, False])
def test_known_tokens_keep_their_rows_and_new_ones_start_at_the_mean(
    family: type[LanguageModel], output: str, tied: bool
) -> None:
    sizes = {"embedding_dim": 8, "tied": tied, "output": output}
    sizes |= {"hidden_size": 8} if family is LSTM else {"num_heads": 2, "context_length": 8}
    source, model = family(OLD.vocab_size, **sizes), family(NEW.vocab_size, **sizes)
    with torch.no_grad():
        source.get_parameter("output.bias").normal_()
    sentence = transfer_weights(source, OLD, model, NEW)
    assert f"{OLD.vocab_size} of {NEW.vocab_size} tokens are known" in sentence
    for name in ("embedding.weight", "output.weight", "output.bias"):
        before, after = source.get_parameter(name), model.get_parameter(name)
        for index, token in enumerate(NEW.tokens):
            expected = before[OLD.tokens.index(token)] if token in OLD.tokens else before.mean(dim=0)
            torch.testing.assert_close(after[index], expected)
    others = [name for name, _ in source.named_parameters() if not name.startswith(("embedding", "output"))]
    assert others
    assert all(torch.equal(source.get_parameter(name), model.get_parameter(name)) for name in others)


def test_with_the_same_tokens_the_predictions_are_the_same() -> None:
    for options in ({"output": "full"}, {"output": "adaptive", "cutoffs": [3]}):
        source, model = (LSTM(OLD.vocab_size, 8, 8, **options) for _ in range(2))
        transfer_weights(source, OLD, model, tokenizer_of("the cat sat on the mat"))
        tokens = torch.tensor([[2, 3, 4]])
        source.eval(), model.eval()
        expected, found = (one(tokens, one.initial_state(1))[0] for one in (source, model))
        assert torch.equal(expected, found)


def test_an_adaptive_softmax_refuses_another_vocabulary() -> None:
    source, model = (LSTM(len(one.tokens), 8, 8, output="adaptive", cutoffs=[3]) for one in (OLD, NEW))
    with pytest.raises(LinguistError, match="adaptive softmax has no row for each token"):
        transfer_weights(source, OLD, model, NEW)


HEADERS = {"glove": "", "word2vec": "3 4\n"}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_word_vectors_start_the_embedding(header: str, tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(f"{header}cat 1 0 0 0\nthe 0 2 0 0\nnew york 9 9 9 9\nunrelated 5 5 5 5\n", encoding="utf-8")
    rows, found = read_word_vectors(path, ["The", "cat", "dog", "new york"], 4)
    assert found == 3
    assert rows.tolist() == [[0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [9, 9, 9, 9]]

    model = LSTM(NEW.vocab_size, 4, 8, tied=False)
    before = model.embedding.weight.clone()
    sentence = start_from_vectors(model, NEW, WordVectors(path, frozen=True))
    assert f"2 of {NEW.vocab_size} tokens found, not trained" in sentence
    weight = model.get_parameter("embedding.weight")
    the, cat, dog = (weight[NEW.tokens.index(word)].detach() for word in ("the", "cat", "dog"))
    assert torch.equal(dog, before[NEW.tokens.index("dog")])
    assert the.norm().item() == pytest.approx(2 * cat.norm().item(), rel=1e-5)
    assert np.count_nonzero(the) == np.count_nonzero(cat) == 1
    assert not weight.requires_grad


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"3 7\ncat 1 2 3 4 5 6 7\n", "line 1 has 7 numbers, the embedding 4; set model.embedding_dim=7"),
        (b"cat 1 2\n", "line 1 has 2 numbers"),
        (b"the 1 2 3 4\ncat 1 2\n", "line 2 has 2 numbers"),
        (b"cat 1 2 x 4\n", "line 1 is not a word and 4 numbers"),
        (b"cat 1 2 nan 4\n", "line 1 holds a number that is not finite"),
        (b"cat \xff\xfe 3 4\n", "is not UTF-8"),
    ],
)
def test_broken_word_vectors_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_word_vectors(path, ["cat"], 4)
    with pytest.raises(DataError, match="cannot be read"):
        read_word_vectors(tmp_path / "none.txt", ["cat"], 4)
