"""AdamW by rows against torch's AdamW over the whole table."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torch_linguist.model import LanguageModel
from torch_linguist.optim import LazyAdamW
from torch_linguist.optim.optimizers import build_optimizer, clip_gradients, takes_sparse_gradients

ROWS, WIDTH = 12, 5
ModelBuilder = Callable[..., LanguageModel]


def tables() -> tuple[nn.Parameter, nn.Parameter]:
    start = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return nn.Parameter(start.clone()), nn.Parameter(start.clone())


def gradients(rows: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """The same gradient twice: of the whole table, and of its rows; a row may come several times."""
    values = torch.randn(len(rows), WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sparse = torch.sparse_coo_tensor(torch.tensor([rows]), values, (ROWS, WIDTH), check_invariants=True)
    return sparse.to_dense(), sparse


def test_a_table_used_whole_learns_as_under_adamw() -> None:
    lazy, dense = tables()
    ours, theirs = LazyAdamW([lazy], lr=0.1, weight_decay=0.0), torch.optim.AdamW([dense], lr=0.1, weight_decay=0.0)
    for step in range(6):
        dense.grad, lazy.grad = gradients([*range(ROWS), 3, 3], step)
        ours.step()
        theirs.step()
    torch.testing.assert_close(lazy, dense, atol=1e-12, rtol=0)


def test_a_row_used_again_catches_up_with_adamw() -> None:
    """After updates without it a row's moments are those of the dense optimizer, and its weight is close to there.

    Not exactly, since the bias corrections stand still meanwhile; the optimizer that forgets the missed updates is far.
    """
    lazy, dense = tables()
    forgetful = nn.Parameter(lazy.detach().clone())
    plain = torch.optim.SparseAdam([forgetful], lr=0.01)
    ours, theirs = LazyAdamW([lazy], lr=0.01, weight_decay=0.0), torch.optim.AdamW([dense], lr=0.01, weight_decay=0.0)
    before = lazy.detach().clone()
    for step in range(200):
        rows = [0, 1] if step % 40 == 0 else [2, 3]
        dense.grad, lazy.grad = gradients(rows, step)
        forgetful.grad = lazy.grad.clone()
        for optimizer in (ours, theirs, plain):
            optimizer.step()
    dense.grad, lazy.grad = gradients([0, 1, 2, 3], 999)
    forgetful.grad = lazy.grad.clone()
    for optimizer in (ours, theirs, plain):
        optimizer.step()
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(ours.state[lazy][name][:4], theirs.state[dense][name][:4], atol=1e-12, rtol=0)
    moved, error, plain_error = (
        float((one - other)[:2].detach().norm()) for one, other in ((dense, before), (lazy, dense), (forgetful, dense))
    )
    assert error < 0.15 * moved
    assert error < 0.2 * plain_error
    torch.testing.assert_close(lazy[2:4], dense[2:4], atol=1e-3, rtol=0)
    assert torch.equal(lazy[4:], before[4:])


def test_rows_decay_as_under_adamw_once_they_are_used_again() -> None:
    lazy, dense = tables()
    options: dict[str, Any] = {"lr": 0.01, "betas": (0.0, 0.99), "weight_decay": 0.5}  # Without momentum, exactly.
    ours, theirs = LazyAdamW([lazy], **options), torch.optim.AdamW([dense], **options)
    for step, rows in enumerate([[0, 1, 2], [2, 3], [3], [3], [0, 1, 2, 3]]):
        dense.grad, lazy.grad = gradients(rows, step)
        ours.step()
        theirs.step()
    torch.testing.assert_close(lazy[:4], dense[:4], atol=1e-12, rtol=0)


def test_dense_gradients_are_adamws_bit_for_bit() -> None:
    one, other = tables()
    ours = LazyAdamW([one], lr=0.1, weight_decay=0.3)
    theirs = torch.optim.AdamW([other], lr=0.1, weight_decay=0.3, fused=True)
    for step in range(3):
        one.grad, _ = gradients([0, 5, 7], step)
        other.grad = one.grad.clone()
        ours.step()
        theirs.step()
    assert torch.equal(one, other)


def test_its_state_goes_on_where_it_was() -> None:
    straight, broken = tables()
    first, second = LazyAdamW([straight], lr=0.1), LazyAdamW([broken], lr=0.1)
    for step in range(8):
        if step == 4:
            state = second.state_dict()
            second = LazyAdamW([broken], lr=0.1)
            second.load_state_dict(state)
        _, straight.grad = gradients([step, 11], step)
        broken.grad = straight.grad.clone()
        first.step()
        second.step()
    assert torch.equal(straight, broken)


@pytest.mark.parametrize("limit", [0.1, 100.0, None])
def test_clipping_sparse_and_dense_gradients(limit: float | None) -> None:
    """Against torch's clipping of the same gradients as whole tables."""
    parts = [nn.Parameter(torch.zeros(ROWS, WIDTH, dtype=torch.float64)) for _ in range(4)]
    for index in (0, 2):
        parts[index].grad, parts[index + 1].grad = gradients([1, 4, 4, 9], index)
    ours, theirs = [parts[1], parts[2]], [parts[0], nn.Parameter(parts[2].detach().clone())]
    assert parts[2].grad is not None
    theirs[1].grad = parts[2].grad.clone()
    expected = torch.nn.utils.clip_grad_norm_(theirs, float("inf") if limit is None else limit)
    torch.testing.assert_close(clip_gradients(ours, limit), expected)
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.to_dense(), other.grad)


@pytest.mark.parametrize(("optimizer", "taken"), [(LazyAdamW, True), (torch.optim.AdamW, False)])
@pytest.mark.parametrize("output", ["full", "sampled", "adaptive"])
def test_tables_give_what_the_optimizer_takes(
    optimizer: Any, taken: bool, output: str, build_model: ModelBuilder
) -> None:
    model = build_model("lstm", 50, tied=output == "sampled", output=output, cutoffs=[20])
    factory = functools.partial(optimizer, betas=(0.9, 0.99))
    built = build_optimizer(model, factory, lr=0.01, weight_decay=0.1)
    model.use_sparse_gradients(takes_sparse_gradients(model, factory, 0.1))
    model.train()
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    weight = model.get_parameter("embedding.weight")
    before = weight.detach().clone()
    nll, _ = model.nll(tokens, tokens, model.initial_state(1))
    nll.sum().backward()  # type: ignore[no-untyped-call]
    gradient = weight.grad
    assert gradient is not None
    assert gradient.is_sparse == taken
    built.step()
    used = (weight.detach() - before).abs().sum(1) > 0
    assert bool(used[tokens].all())
    if output != "sampled":
        assert used.nonzero().flatten().tolist() == [1, 3, 4, 5]
