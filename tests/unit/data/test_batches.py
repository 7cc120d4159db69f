import logging
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_linguist.data import Batches, ContiguousBatches, TokenStream, VariableBatches, WindowBatches
from torch_linguist.errors import DataError

EOS = 60_000  # Above every position below, so that it is told apart from them.

layouts = st.tuples(st.integers(1, 400), st.integers(1, 9), st.integers(1, 40), st.integers(0, 5)).filter(
    lambda layout: layout[0] >= layout[2]
)


def stream_of(ids: Any) -> TokenStream:
    array = np.asarray(ids, np.uint16)
    offsets = np.array([0, len(array)], np.int64)
    return TokenStream("train", array, EOS, 0, 0, 0, offsets, offsets)


def counting_stream(length: int) -> TokenStream:
    """Each token is its own position, so a batch shows where it was read."""
    return stream_of(range(length))


def one_pass(batches: Batches) -> list[Any]:
    return [batches.next() for _ in range(batches.batches_per_epoch)]


@settings(max_examples=60, deadline=None)
@given(layouts)
@pytest.mark.parametrize("kind", [ContiguousBatches, WindowBatches])
def test_a_pass_meets_each_token_at_most_once_and_leaves_out_only_the_tail(
    kind: type[Batches], layout: tuple[int, int, int, int]
) -> None:
    length, batch_size, sequence_length, seed = layout
    batches = kind(counting_stream(length), batch_size, sequence_length, seed)
    for _ in range(3):
        targets = np.concatenate([batch.targets.numpy().ravel() for batch in one_pass(batches)])
        unit = batches.batch_size if kind is ContiguousBatches else sequence_length
        assert len(np.unique(targets)) == len(targets) == length - length % unit


@settings(max_examples=60, deadline=None)
@given(layouts)
@pytest.mark.parametrize("kind", [ContiguousBatches, WindowBatches])
def test_each_target_follows_its_token_and_the_first_follows_eos(
    kind: type[Batches], layout: tuple[int, int, int, int]
) -> None:
    length, batch_size, sequence_length, seed = layout
    batches = kind(counting_stream(length), batch_size, sequence_length, seed)
    for batch in one_pass(batches):
        tokens, targets = batch.tokens.numpy(), batch.targets.numpy()
        np.testing.assert_array_equal(tokens, np.where(targets == 0, EOS, targets - 1))


@settings(max_examples=60, deadline=None)
@given(layouts)
def test_contiguous_rows_go_on_where_they_ended(layout: tuple[int, int, int, int]) -> None:
    length, batch_size, sequence_length, seed = layout
    batches = ContiguousBatches(counting_stream(length), batch_size, sequence_length, seed)
    for _ in range(2):
        whole = one_pass(batches)
        assert [batch.reset for batch in whole] == [True] + [False] * (len(whole) - 1)
        rows = np.concatenate([batch.targets.numpy() for batch in whole], axis=1)
        assert (np.diff(rows, axis=1) % length == 1 % length).all()


def test_every_window_starts_afresh_and_the_order_changes() -> None:
    batches = WindowBatches(counting_stream(1000), 4, 10, seed=3)
    first = [batch.targets[0, 0].item() for batch in one_pass(batches)]
    second = [batch.targets[0, 0].item() for batch in one_pass(batches)]
    assert first != second
    assert all(batch.reset and not batch.continues for batch in one_pass(batches))


def test_the_seed_decides() -> None:
    def starts(seed: int) -> list[float]:
        return [batch.targets[0, 0].item() for batch in one_pass(WindowBatches(counting_stream(500), 4, 10, seed))]

    assert starts(1) == starts(1) != starts(2)


@pytest.mark.parametrize("kind", [ContiguousBatches, WindowBatches])
def test_chunk_borders_move_from_pass_to_pass(kind: type[Batches]) -> None:
    batches = kind(counting_stream(997), 3, 16, 0)
    borders = [{int(row) % 16 for batch in one_pass(batches) for row in batch.targets[:, 0]} for _ in range(4)]
    assert len(set().union(*borders)) > len(borders[0])


def test_the_repetitions_of_a_token_are_a_pass_apart() -> None:
    # Where a pass began anywhere on the circle, a stream could meet again what another had just read; now only what
    # lies at its borders, less than one chunk of each stream.
    batches = ContiguousBatches(counting_stream(1000), 4, 10, seed=5)
    met: dict[int, int] = {}
    soon = 0
    for index in range(6 * batches.batches_per_epoch):
        for token in batches.next().targets.flatten().tolist():
            soon += token in met and index - met[token] < batches.batches_per_epoch - 1
            met[token] = index
    assert soon < 5 * 4 * 10


@settings(max_examples=40, deadline=None)
@given(layouts, st.integers(0, 30))
@pytest.mark.parametrize("kind", [ContiguousBatches, WindowBatches])
def test_a_restored_position_gives_the_same_batches(
    kind: type[Batches], layout: tuple[int, int, int, int], done: int
) -> None:
    length, batch_size, sequence_length, seed = layout
    stream = counting_stream(length)
    straight = kind(stream, batch_size, sequence_length, seed)
    for _ in range(done):
        straight.next()
    state = straight.state_dict()
    assert all(type(value) is int for value in state.values())
    resumed = kind(stream, batch_size, sequence_length, seed)
    resumed.load_state_dict(state)
    assert resumed.epoch == straight.epoch
    for _ in range(5):
        expected, actual = straight.next(), resumed.next()
        assert expected.tokens.equal(actual.tokens)
        assert expected.targets.equal(actual.targets)
        assert expected.reset == actual.reset


def test_a_position_of_other_settings_is_refused() -> None:
    state = ContiguousBatches(counting_stream(100), 2, 10, 0).state_dict()
    with pytest.raises(DataError, match="sequence_length=10, this run has sequence_length=20"):
        ContiguousBatches(counting_stream(100), 2, 20, 0).load_state_dict(state)


def test_epoch_counts_passes() -> None:
    batches = ContiguousBatches(counting_stream(100), 2, 10, 0)
    assert (batches.epoch, batches.batches_per_epoch, batches.tokens_per_batch) == (0.0, 5, 20)
    batches.next()
    assert batches.epoch == pytest.approx(0.2)
    for _ in range(9):
        batches.next()
    assert batches.epoch == 2.0


def test_batches_are_contiguous_int64() -> None:
    batch = ContiguousBatches(counting_stream(100), 2, 10, 0).next()
    for tensor in (batch.tokens, batch.targets):
        assert str(tensor.dtype) == "torch.int64"
        assert tensor.is_contiguous()


def test_a_stream_shorter_than_a_sequence_names_the_way_out() -> None:
    with pytest.raises(DataError, match=r"trainer.sequence_length=64: the split train has only 63 tokens"):
        ContiguousBatches(counting_stream(63), 1, 64, 0)


@pytest.mark.parametrize("field", ["batch_size", "sequence_length"])
def test_numbers_must_be_positive(field: str) -> None:
    with pytest.raises(DataError, match=f"trainer.{field}=0: must be at least 1"):
        WindowBatches(counting_stream(63), **{"batch_size": 1, "sequence_length": 1, field: 0})


def test_too_few_sequences_lower_the_batch_size_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="torch_linguist.data"):
        for _ in range(2):
            batches = ContiguousBatches(counting_stream(71), 32, 10, 0)
    assert batches.batch_size == 7
    assert [record.getMessage() for record in caplog.records] == [
        "trainer.batch_size=32 lowered to 7: the split train has only 71 tokens, 7 sequences of 10"
    ]


def test_variable_batches_read_every_token_once_and_continue_exactly() -> None:
    length, rows = 40_000, 4
    stream = counting_stream(length)
    batches = VariableBatches(stream, rows, 30, seed=3)
    lengths, seen = [], []
    for number in range(batches.batches_per_epoch):
        batch = batches.next()
        assert batch.reset == (number == 0)
        lengths.append(batch.tokens.shape[1])
        seen.append(batch.targets)
        if number == 100:
            saved = batches.state_dict()
    assert torch.equal(torch.cat(seen, 1).flatten().sort()[0], torch.arange(length))
    assert len(set(lengths)) > 10
    assert min(lengths[:-1]) >= 5
    assert 28 < np.mean(lengths) < 31
    again = VariableBatches(stream, rows, 30, seed=3)
    again.load_state_dict(saved)
    assert torch.equal(again.next().targets, seen[101])
    with pytest.raises(DataError, match="variable_length"):
        again.load_state_dict(ContiguousBatches(stream, rows, 30, seed=3).state_dict())
