import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.errors import ConfigError, DataError
from torch_linguist.model.ngram import NGramModel, read_arpa, write_arpa

kenlm = pytest.importorskip("kenlm")

# Estimated by KenLM's lmplz (order 3) from 400 words; holds words that look like missing values or need quoting.
KENLM_FILE = Path(__file__).resolve().parents[3] / "assets/ngram/kenlm.arpa"
TOKENS = ["<eos>", "<unk>", "the", "NA", '"', "naïve", "nan", "#", "null", "1e5"]


def fitted(ids: list[int], order: int, **arguments: Any) -> NGramModel:
    model = NGramModel(len(TOKENS), order, **arguments)
    model.fit_counts(np.array(ids, dtype=np.uint16), eos_id=0)
    return model


def our_scores(model: NGramModel, ids: list[int]) -> list[float]:
    tokens = torch.tensor([ids])
    first = model.unigrams[ids[0]].item()
    nll, _ = model.nll(tokens[:, :-1], tokens[:, 1:], model.initial_state(1))
    return [first, *(-nll[0]).tolist()]


def kenlm_scores(path: Path, words: list[str]) -> list[float]:
    model = kenlm.Model(str(path))
    scores = model.full_scores(" ".join(words), bos=False, eos=False)
    return [score * math.log(10) for score, _, _ in scores]


ids_lists = st.lists(st.integers(0, len(TOKENS) - 1), min_size=2, max_size=80)


@settings(max_examples=25, deadline=None)
@given(train=ids_lists, text=ids_lists, order=st.integers(2, 6), least=st.integers(1, 2), packed=st.booleans())
def test_kenlm_gives_the_scores_of_a_file_that_we_wrote(
    tmp_path_factory: pytest.TempPathFactory, train: list[int], text: list[int], order: int, least: int, packed: bool
) -> None:
    model = fitted(train, order, min_count=least)
    path = tmp_path_factory.mktemp("arpa") / ("model.arpa.gz" if packed else "model.arpa")
    write_arpa(model, TOKENS, path)
    expected = our_scores(model, text)
    assert kenlm_scores(path, [TOKENS[index] for index in text]) == pytest.approx(expected, abs=2e-5)
    for tokens in (None, TOKENS):
        restored, vocabulary = read_arpa(path, tokens)
        numbers = [vocabulary.index(TOKENS[index]) for index in text]
        assert our_scores(restored, numbers) == pytest.approx(expected, abs=1e-7)
    assert restored.ngram_counts() == model.ngram_counts()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_of_kenlm_is_read_as_kenlm_reads_it() -> None:
    model, vocabulary = read_arpa(KENLM_FILE)
    words = ["the", "of", "naïve", "NA", "nan", "the", "the", "1,000", "null", "<eos>", "peace", "war", "the"]
    ours = our_scores(model, [vocabulary.index(word) for word in words])
    assert ours == pytest.approx(kenlm_scores(KENLM_FILE, words), abs=1e-5)


def test_sentences_of_kenlm_are_lines_of_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "sentences.arpa"
    path.write_text(KENLM_FILE.read_text(encoding="utf-8").replace("<eos>", "eos"), encoding="utf-8")
    model, vocabulary = read_arpa(path)
    assert vocabulary[:3] == ["<eos>", "<unk>", "the"]
    lines = [["the", "of", "state"], [], ["peace", "war", "of", "eos", "the"], ["the"]]
    ids = [vocabulary.index(word) for line in lines for word in [*line, "<eos>"]]
    tokens = torch.tensor([[vocabulary.index("<eos>"), *ids]])
    nll, _ = model.nll(tokens[:, :-1], tokens[:, 1:], model.initial_state(1))
    lengths = [len(line) + 1 for line in lines]
    reference = kenlm.Model(str(path))
    expected = [-math.log(10) * reference.score(" ".join(line), bos=True, eos=True) for line in lines]
    assert [part.sum().item() for part in torch.split(nll[0], lengths)] == pytest.approx(expected, abs=1e-5)
    logits, _ = model(tokens, model.initial_state(1))
    assert torch.allclose(logits.exp().sum(-1), torch.ones_like(logits[..., 0]), atol=1e-5)
    given, _ = read_arpa(path, vocabulary, memory_limit_mib=16)
    assert torch.equal(given(tokens, given.initial_state(1))[0], logits)


def test_a_given_vocabulary_leaves_out_other_words_and_lends_unk_to_lacking_ones() -> None:
    _, words = read_arpa(KENLM_FILE)
    tokens = [*reversed([word for word in words if word not in ("<s>", "</s>", "<unk>", "war")]), "unheard"]
    model, vocabulary = read_arpa(KENLM_FILE, tokens)
    assert vocabulary == tokens
    text = ["the", "of", "the", "unheard", "peace", "unheard", "of", "state"]
    ours = our_scores(model, [tokens.index(word) for word in text])
    assert ours == pytest.approx(kenlm_scores(KENLM_FILE, text), abs=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "\\dada\\", "no \\\\data\\\\|ends where \\\\data\\\\"),
        ("ngram 2=", "ngram 3=", "order 2 is expected here"),
        ("ngram 2=", "ngram 2=1", "header counts 1"),
        ("\\2-grams:", "\\4-grams:", "2-grams: is expected here"),
        ("\\end\\", "", "truncated"),
        ("ngram 3=", "ngram 3=9", "the header counts 9"),
        ("\tthe of\t", "\tthe offf\t", "line \\d+: the word 'offf' is not among"),
        ("\tthe of\t", "\tthe\t", "2-gram has a log-probability, 2 words|is not among"),
        ("\tthe of\t", "\tthe of of\t", "malformed|2-gram has"),
        ("\tthe of\t", "\tthe the\t", "a 2-gram occurs twice"),
        ("\tthe\t", "\tof\t", "a word occurs twice"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = KENLM_FILE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "damaged.arpa"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_arpa(path)
    assert "damaged.arpa" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_count_too_low_or_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = KENLM_FILE.read_bytes()
    path = tmp_path / "cut.arpa"
    for end in range(0, len(data) - 6, 997):
        path.write_bytes(data[:end])
        with pytest.raises(DataError, match=r"cut\.arpa"):
            read_arpa(path)
    text = data.decode()
    count = int(text.split("ngram 3=")[1].split()[0])
    path.write_text(text.replace(f"ngram 3={count}", f"ngram 3={count - 1}"), encoding="utf-8")
    with pytest.raises(DataError, match="header counts fewer"):
        read_arpa(path)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000), junk=st.binary(min_size=1, max_size=6))
def test_junk_is_read_or_refused_but_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, place: int, junk: bytes
) -> None:
    data = KENLM_FILE.read_bytes()
    path = tmp_path_factory.mktemp("arpa") / "junk.arpa"
    path.write_bytes(data[:place] + junk + data[place + len(junk) :])
    try:
        model, _ = read_arpa(path)
    except DataError as error:
        assert "junk.arpa" in str(error)  # noqa: PT017
    else:
        assert all(torch.isfinite(buffer).all() for buffer in model.buffers() if buffer.is_floating_point())


def test_what_cannot_be_written_or_found_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.arpa"
    with pytest.raises(ConfigError, match="stupid_backoff"):
        write_arpa(fitted([1, 2], 2, smoothing="stupid_backoff"), TOKENS, path)
    with pytest.raises(ConfigError, match="3 words do not fit"):
        write_arpa(fitted([1, 2], 2), ["a", "b", "c"], path)
    with pytest.raises(DataError, match="white space"):
        write_arpa(fitted([1, 2], 2), [*TOKENS[:-1], "a b"], path)
    with pytest.raises(DataError, match="twice"):
        write_arpa(fitted([1, 2], 2), [*TOKENS[:-1], "the"], path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="no such ARPA file"):
        read_arpa(path)
    packed = tmp_path / "model.arpa.gz"
    write_arpa(fitted([1, 2, 3], 2), TOKENS, packed)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(DataError, match="truncated"):
        read_arpa(packed)
