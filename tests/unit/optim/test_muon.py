"""Muon: which weights it updates, how, and whether it continues exactly."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from torch_linguist.model import LanguageModel
from torch_linguist.optim import LazyAdamW, Muon
from torch_linguist.optim.optimizers import build_optimizer, load_optimizer, set_learning_rate
from torch_linguist.trainer import Fit, TrainingContext

ModelBuilder = Callable[..., LanguageModel]


def trained(model: LanguageModel, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        tokens = torch.randint(0, model.vocab_size, (3, 6), generator=generator)
        nll, _ = model.nll(tokens[:, :-1], tokens[:, 1:], model.initial_state(3))
        nll.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize(("family", "gates"), [("lstm", 4), ("gru", 3), ("rnn", 1), ("transformer", 1)])
def test_hidden_matrices_move_by_an_orthogonal_step(family: str, gates: int, build_model: ModelBuilder) -> None:
    model = build_model(family, 30, num_layers=1)
    before = {id(weight): weight.detach().clone() for weight in model.parameters()}
    optimizer = build_optimizer(model, Muon, lr=0.01, weight_decay=0.0)
    trained(model, optimizer, 1)
    hidden = {id(matrix): count for matrix, count in model.hidden_matrices()}
    names = {name for name, weight in model.named_parameters() if id(weight) in hidden}
    assert names == {name for name, weight in model.named_parameters() if weight.dim() == 2} - {
        "embedding.weight",
        "output.weight",
    }
    assert max(hidden.values()) == gates
    for weight in model.parameters():
        if id(weight) in hidden:
            for moved, old in zip(
                weight.chunk(hidden[id(weight)]), before[id(weight)].chunk(hidden[id(weight)]), strict=True
            ):
                scale = 0.01 * 0.2 * max(moved.shape) ** 0.5
                singular = torch.linalg.svdvals((moved - old).double()) / scale
                # Newton-Schulz iterations leave the singular values between about 0.5 and 1.5.
                assert singular.max() < 1.6
                assert singular.max() > 0.6


def test_the_step_of_a_gate_follows_the_formula(build_model: ModelBuilder) -> None:
    model = build_model("lstm", 30, num_layers=1)
    weight = model.get_parameter("layers.0.weight_hh_l0")
    before = weight.detach().clone().double()
    optimizer = build_optimizer(model, Muon, lr=0.01, weight_decay=0.1)
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    gradient = weight.grad.double()
    optimizer.step()
    for gate in range(4):
        rows = slice(16 * gate, 16 * gate + 16)
        expected = before[rows] * (1 - 0.01 * 0.1) - 0.01 * 0.2 * 4 * orthogonalized(0.0975 * gradient[rows])
        # The reference iterates in bfloat16.
        assert float((weight.detach()[rows].double() - expected).norm() / (expected - before[rows]).norm()) < 0.05


def orthogonalized(matrix: Tensor) -> Tensor:
    """Five Newton-Schulz iterations in float64."""
    found: Tensor = matrix / matrix.norm()
    for _ in range(5):
        square = found @ found.T
        found = 3.4445 * found + (-4.775 * square + 2.0315 * square @ square) @ found
    return found


def test_all_other_weights_move_as_by_lazy_adamw(build_model: ModelBuilder) -> None:
    ours, reference = build_model("lstm", 30), build_model("lstm", 30)
    for model, optimizer in (
        (ours, build_optimizer(ours, Muon, lr=0.01, weight_decay=0.1)),
        (reference, build_optimizer(reference, LazyAdamW, lr=0.01, weight_decay=0.1)),
    ):
        for group in optimizer.param_groups:
            group["betas"] = (0.9, 0.99)
        trained(model, optimizer, 1)
    hidden = {id(matrix) for matrix, _ in ours.hidden_matrices()}
    for weight, other in zip(ours.parameters(), reference.parameters(), strict=True):
        assert torch.equal(weight, other) == (id(weight) not in hidden)


def test_it_continues_exactly(build_model: ModelBuilder) -> None:
    model = build_model("lstm", 30)
    optimizer = build_optimizer(model, Muon, lr=0.01, weight_decay=0.1)
    trained(model, optimizer, 3)
    again = copy.deepcopy(model)
    continued = build_optimizer(again, Muon, lr=0.01, weight_decay=0.1)
    load_optimizer(continued, copy.deepcopy(optimizer.state_dict()))
    for one, best in ((model, optimizer), (again, continued)):
        set_learning_rate(best, 0.003)
        trained(one, best, 2)
    assert all(map(torch.equal, model.parameters(), again.parameters()))


def test_a_training_resumes_to_the_bit(
    fit_of: Callable[..., Fit], make_context: Callable[..., TrainingContext], tmp_path: Path
) -> None:
    whole = fit_of(tmp_path / "whole", make_optimizer=Muon)
    whole.run()
    part = fit_of(tmp_path / "part", make_optimizer=Muon, max_steps=6)
    part.run()
    rest = fit_of(tmp_path / "part", make_optimizer=Muon, resume=tmp_path / "part" / "checkpoints" / "last.pt")
    rest.run()
    assert all(map(torch.equal, whole.model.parameters(), rest.model.parameters()))


def test_hidden_matrices_have_a_learning_rate_of_their_own(build_model: ModelBuilder) -> None:
    model = build_model("gru", 30, num_layers=1)
    factory = functools.partial(Muon, hidden_lr_ratio=0.5)
    optimizer = build_optimizer(model, factory, lr=0.01, weight_decay=0.0)
    set_learning_rate(optimizer, 0.02)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.02, 0.01]
