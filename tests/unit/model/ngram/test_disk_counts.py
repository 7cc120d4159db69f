from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.errors import ConfigError, DataError
from torch_linguist.model.ngram import NGramModel
from torch_linguist.model.ngram.columns import DiskStore
from torch_linguist.model.ngram.counts import NGramCounts, count_ngrams
from torch_linguist.model.ngram.disk_counts import count_on_disk


def assert_equal(left: NGramCounts, right: NGramCounts, order: int) -> None:
    np.testing.assert_array_equal(left.unigrams, right.unigrams)
    assert len(left.levels) == len(right.levels) == order - 1
    for k, (ours, theirs) in enumerate(zip(left.levels, right.levels, strict=True), start=2):
        # Nothing uses the start of the highest order.
        assert ours.start == theirs.start or k == order
        for name in ("keys", "suffix", "counts"):
            np.testing.assert_array_equal(getattr(ours, name)[:], getattr(theirs, name)[:])
            assert getattr(ours, name).dtype == getattr(theirs, name).dtype


@settings(max_examples=40, deadline=None)
@given(
    ids=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    order=st.integers(1, 8),
    vocab_size=st.sampled_from([5, 33_278, 3_000_000]),
    stretch=st.sampled_from([1, 3, 10, 200]),
    rows=st.sampled_from([1, 5, 200]),
)
def test_counts_equal_those_in_memory_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], order: int, vocab_size: int, stretch: int, rows: int
) -> None:
    stream = np.array(ids) * ((vocab_size - 1) // 4)
    store = DiskStore(tmp_path_factory.mktemp("counts"), rows=rows, block=rows)
    counts = count_on_disk(stream, vocab_size, order, int(stream[0]), store, stretch)
    assert_equal(counts, count_ngrams(stream, vocab_size, order, int(stream[0])), order)


def stream(size: int) -> np.typing.NDArray[np.uint16]:
    """Ids that rise in vocabulary and repeat stretches, so that n-grams cross every border of runs and parts."""
    ids = np.random.default_rng(0).zipf(1.2, size) % 3000
    ids[size * 3 // 4 :] = ids[size // 10 : size // 10 + size - size * 3 // 4]
    return ids.astype(np.uint16)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"smoothing": "witten_bell", "min_count": [1, 1, 2]},
        {"smoothing": "add_k", "order": 3},
        {"smoothing": "stupid_backoff", "min_count": 2},
        {"min_count": [1, 1, 2, 3], "min_word_count": 5},
        {"entropy_threshold": 1e-6},
        {"entropy_threshold": 1e-7, "min_count": [1, 1, 2], "min_word_count": 3},
        {"quantize_bits": 8, "min_count": [1, 2]},
    ],
)
def test_a_limit_gives_the_same_model_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    np.save(tmp_path / "ids.npy", stream(200_000))
    mapped = np.load(tmp_path / "ids.npy", mmap_mode="r")
    arguments = {"order": 5, **options}
    free, bounded = NGramModel(3000, **arguments), NGramModel(3000, memory_limit_mib=16, **arguments)  # type: ignore[arg-type]
    free.fit_counts(mapped, eos_id=1)
    bounded.fit_counts(mapped, eos_id=1)
    assert bounded.ngram_counts() == free.ngram_counts()
    for (name, left), (_, right) in zip(free.state_dict().items(), bounded.state_dict().items(), strict=True):
        assert torch.equal(left, right), name
    assert [path.name for path in tmp_path.iterdir()] == ["ids.npy"]


def test_bad_limits_and_streams_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="memory_limit_mib=15"):
        NGramModel(10, memory_limit_mib=15)
    with pytest.raises(DataError, match="no token"):
        count_on_disk(np.empty(0, np.uint16), 3, 2, 0, DiskStore(tmp_path, rows=1, block=1), 16)
