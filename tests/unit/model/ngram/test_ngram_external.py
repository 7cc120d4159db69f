from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.errors import ConfigError, DataError
from torch_linguist.model.ngram import NGramModel, external
from torch_linguist.model.ngram.counts import NGramCounts, count_ngrams
from torch_linguist.model.ngram.external import count_on_disk


def assert_equal(left: NGramCounts, right: NGramCounts) -> None:
    np.testing.assert_array_equal(left.unigrams, right.unigrams)
    assert len(left.levels) == len(right.levels)
    for ours, theirs in zip(left.levels, right.levels, strict=True):
        assert ours.start == theirs.start
        for name in ("keys", "suffix", "counts"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
            assert getattr(ours, name).dtype == getattr(theirs, name).dtype


@settings(max_examples=40, deadline=None)
@given(
    ids=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    order=st.integers(1, 8),
    vocab_size=st.sampled_from([5, 33_278, 3_000_000]),
    rows=st.sampled_from([1, 3, 10, 200]),
)
def test_counts_equal_those_in_memory_bit_for_bit(ids: list[int], order: int, vocab_size: int, rows: int) -> None:
    stream = np.array(ids) * ((vocab_size - 1) // 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external, "_rows", lambda limit, packing: rows)
        with count_on_disk(stream, vocab_size, order, int(stream[0]), 16) as counts:
            assert_equal(counts, count_ngrams(stream, vocab_size, order, int(stream[0])))


def test_a_limit_gives_the_same_model_and_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # Rises in vocabulary and repeats stretches, so that n-grams cross every border of runs and parts.
    generator = np.random.default_rng(0)
    ids = generator.zipf(1.2, 200_000) % 3000
    ids[150_000:] = ids[20_000:70_000]
    np.save(tmp_path / "ids.npy", ids.astype(np.uint16))
    mapped = np.load(tmp_path / "ids.npy", mmap_mode="r")
    free, bounded = NGramModel(3000, 5), NGramModel(3000, 5, memory_limit_mib=16)
    free.fit_counts(mapped, eos_id=1)
    bounded.fit_counts(mapped, eos_id=1)
    for (name, left), (_, right) in zip(free.state_dict().items(), bounded.state_dict().items(), strict=True):
        assert torch.equal(left, right), name
    assert [path.name for path in tmp_path.iterdir()] == ["ids.npy"]


def test_bad_limits_and_streams_are_refused() -> None:
    with pytest.raises(ConfigError, match="memory_limit_mib=15"):
        NGramModel(10, memory_limit_mib=15)
    with pytest.raises(DataError, match="no token"), count_on_disk(np.empty(0, np.uint16), 3, 2, 0, 16):
        pass
