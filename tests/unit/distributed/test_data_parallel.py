"""Rows, gradients and agreement with one process; tests/integration/resuming/test_processes.py runs several."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
from torch._C._distributed_c10d import HashStore
from torch.distributed import DistStoreError

from torch_linguist.distributed import data_parallel, processes
from torch_linguist.distributed.torchrun import is_launched, launched_rank
from torch_linguist.model import LanguageModel


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [0, 1, 5, 16])
def test_every_row_belongs_to_one_process(size: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_parallel, "world_size", lambda: size)
    found: list[int] = []
    for number in range(size):
        monkeypatch.setattr(data_parallel, "rank", lambda number=number: number)
        own = range(rows)[data_parallel.local_rows(rows)]
        assert len(own) in (rows // size, -(-rows // size))
        found += own
    assert found == list(range(rows))


def test_one_process_has_the_gradients_of_its_model(build_model: Callable[..., LanguageModel]) -> None:
    model, other = build_model("lstm", 30), build_model("lstm", 30)
    tokens = torch.randint(30, (3, 8), generator=torch.Generator().manual_seed(1))
    engine = data_parallel.DataParallel(model)
    loss, state = engine.backward(tokens[:, :-1], tokens[:, 1:], None, 21, last=True)
    engine.finish(loss)
    engine.close()
    nll, expected = other.nll(tokens[:, :-1], tokens[:, 1:], other.initial_state(3))
    nll.mean().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, nll.mean().detach())
    torch.testing.assert_close(state, [part.detach() for part in expected])
    for left, right in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad)


def test_one_process_agrees_with_itself() -> None:
    assert (processes.world_size(), processes.rank(), processes.is_main_process()) == (1, 0, True)
    assert processes.broadcast_object(lambda: {"a": (1, None)}) == {"a": (1, None)}
    assert processes.broadcast_number(0.5) == 0.5
    assert processes.all_reduce_sum(1.0, 2.0) == [1.0, 2.0]
    assert processes.all_gather_object("x") == ["x"]
    with processes.process_group(), processes.main_process_first():
        processes.barrier()
    processes.leave_process_group()


def test_the_rank_counts_only_under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert (is_launched(), launched_rank(), processes.is_main_process()) == (False, 0, True)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (is_launched(), launched_rank(), processes.is_main_process()) == (True, 3, False)


def test_processes_agree_on_an_attempt_though_the_store_remembers_earlier_ones() -> None:
    """Also if the first process comes first, or one that joined earlier has given up."""
    store, wait = HashStore(), timedelta(seconds=20)
    with pytest.raises(DistStoreError):
        processes.agreed_attempt(store, 2, 3, timedelta(seconds=0.1))
    attempts = set()
    with ThreadPoolExecutor(3) as pool:
        for order in ([1, 2, 0], [0, 1, 2], [2, 0, 1]):
            joining = []
            for number in order:
                joining.append(pool.submit(processes.agreed_attempt, store, number, 3, wait))
                time.sleep(0.1)
            names = {one.result(30) for one in joining}
            assert len(names) == 1
            attempts |= names
    assert len(attempts) == 3
    assert processes.agreed_attempt(store, 0, 1, wait) not in attempts
    with pytest.raises(DistStoreError, match="process 1 did not join"):
        processes.agreed_attempt(HashStore(), 0, 2, timedelta(seconds=0.2))
