"""SGD by rows against torch's SGD over the whole table."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torch_linguist.model import LanguageModel
from torch_linguist.optim import SGD
from torch_linguist.optim.optimizers import build_optimizer, takes_sparse_gradients

ModelBuilder = Callable[..., LanguageModel]


@pytest.mark.parametrize("maximize", [False, True])
def test_rows_move_as_under_dense_gradients(maximize: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    lazy, dense = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours, theirs = SGD([lazy], lr=0.3), torch.optim.SGD([dense], lr=0.3, maximize=maximize)
    ours.param_groups[0]["maximize"] = maximize
    for rows in ([0, 5, 5, 7], [11], [5, 0]):
        values = torch.randn(len(rows), 5, generator=generator, dtype=torch.float64)
        lazy.grad = torch.sparse_coo_tensor(torch.tensor([rows]), values, (12, 5), check_invariants=True)
        dense.grad = lazy.grad.to_dense()
        ours.step()
        theirs.step()
    torch.testing.assert_close(lazy, dense, atol=1e-12, rtol=0)
    assert not torch.equal(lazy, start)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_dense_gradients_are_torchs(momentum: float) -> None:
    start = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    one, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    options: dict[str, Any] = {"lr": 0.2, "momentum": momentum, "weight_decay": 0.1}
    ours, theirs = SGD([one], **options), torch.optim.SGD([other], fused=True, **options)
    for step in range(3):
        one.grad = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        other.grad = one.grad.clone()
        ours.step()
        theirs.step()
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "decay", "decay_all", "sparse"),
    [
        ({}, 0.0, False, True),
        ({}, 0.1, False, True),  # Embeddings do not decay.
        ({}, 0.1, True, False),
        ({"momentum": 0.9}, 0.0, False, False),
        ({"momentum": 0.0}, 0.0, True, True),
    ],
)
def test_tables_give_rows_where_that_changes_nothing(
    options: dict[str, float], decay: float, decay_all: bool, sparse: bool, build_model: ModelBuilder
) -> None:
    def trained(factory: Any) -> tuple[Tensor, bool]:
        model = build_model("lstm", 50).train()
        made = functools.partial(factory, **options)
        model.use_sparse_gradients(takes_sparse_gradients(model, made, decay, decay_all))
        built = build_optimizer(model, made, 0.5, decay, decay_all)
        weight = model.get_parameter("embedding.weight")
        tokens = torch.tensor([[3, 1, 4, 1, 5]])
        nll, _ = model.nll(tokens, tokens, model.initial_state(1))
        nll.sum().backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        was_sparse = weight.grad.is_sparse
        built.step()
        return weight.detach(), was_sparse

    ours, given_sparse = trained(SGD)
    theirs, _ = trained(torch.optim.SGD)
    assert given_sparse == sparse
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_an_untied_sampled_output_that_decays_gives_whole_gradients(build_model: ModelBuilder) -> None:
    model = build_model("lstm", 50, output="sampled", cutoffs=[4])
    for decay, sparse in ((0.1, False), (0.0, True)):
        model.use_sparse_gradients(takes_sparse_gradients(model, SGD, decay))
        assert bool(model.get_submodule("output").sparse) == sparse
        assert bool(model.get_submodule("embedding").sparse)
