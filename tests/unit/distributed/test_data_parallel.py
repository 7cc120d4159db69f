"""Rows, gradients and agreement with one process; tests/integration/resuming/test_processes.py runs several."""

import pytest
import torch
from torch import nn

from torch_linguist.distributed import data_parallel, processes
from torch_linguist.distributed.torchrun import is_launched, launched_rank


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


def test_one_process_keeps_its_gradients_and_its_request() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.arange(3.0)
    loss, stop = data_parallel.all_reduce_gradients([weight], torch.tensor(2.5), True)
    assert (float(loss), stop) == (2.5, True)
    assert weight.grad.tolist() == [0, 1, 2]


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
