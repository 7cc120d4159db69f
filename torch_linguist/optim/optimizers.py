"""From a model to its optimizer: which weights decay, and the fused kernels where they exist."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torch_linguist.distributed import processes
from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel
from torch_linguist.optim.row_optimizer import FUSED_DEVICES


class OptimizerFactory(Protocol):
    """A class such as `torch.optim.AdamW`, its other arguments already bound."""

    def __call__(self, params: Iterable[dict[str, Any]], *, lr: float, weight_decay: float) -> Optimizer: ...


def build_optimizer(
    model: LanguageModel,
    factory: Callable[..., Optimizer],
    lr: float,
    weight_decay: float,
    decay_all: bool = False,
) -> Optimizer:
    """An optimizer for all trainable weights of a model.

    Args:
        model: whose weights are trained.
        factory: called with parameter groups, `lr` and `weight_decay`.
        lr: learning rate.
        weight_decay: of the weight matrices; embeddings, norms and biases do not decay unless `decay_all`.
        decay_all: whether everything decays.

    Raises:
        ConfigError: the learning rate is not above zero, or the weight decay is negative.
    """
    if not lr > 0:
        raise ConfigError(f'optim.lr={lr}: must be "auto" or a number greater than 0')
    if not weight_decay >= 0:
        raise ConfigError(f'optim.weight_decay={weight_decay}: must be "auto" or a number of at least 0')
    _choose_gradients(model, factory, weight_decay, decay_all)
    groups = parameter_groups(model, weight_decay, decay_all)
    constructor = getattr(factory, "func", factory)
    bound = getattr(factory, "keywords", {})
    parameters = inspect.signature(constructor).parameters
    extra: dict[str, Any] = {}
    if "fused" in parameters and "fused" not in bound and not bound.get("foreach"):
        extra["fused"] = all(parameter.device.type in FUSED_DEVICES for parameter in model.parameters())
    return factory(groups, lr=lr, weight_decay=weight_decay, **extra)


def _choose_gradients(
    model: LanguageModel, factory: Callable[..., Optimizer], weight_decay: float, decay_all: bool
) -> None:
    """Lets tables give sparse gradients where the optimizer takes them and one process trains alone."""
    takes = getattr(getattr(factory, "func", factory), "takes_sparse_gradients", None)
    spared = {id(parameter) for parameter in model.undecayed_parameters()}

    def enabled(weight: nn.Parameter) -> bool:
        decays = weight_decay > 0 and (decay_all or id(weight) not in spared)
        return takes is not None and processes.world_size() == 1 and takes(decays, getattr(factory, "keywords", {}))

    model.use_sparse_gradients(enabled)


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float | None) -> Tensor:
    """Scales the gradients down to a norm of at most `limit`, without waiting for the device.

    Args:
        parameters: with gradients, dense or sparse; sparse ones are coalesced.
        limit: largest norm; None only measures.

    Returns:
        The norm before, without dimensions.
    """
    values: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
            values.append(parameter.grad.values() if parameter.grad.is_sparse else parameter.grad)
    norm = torch.nn.utils.get_total_norm(values)
    if limit is not None and values:
        torch._foreach_mul_(values, torch.clamp(limit / (norm + 1e-6), max=1.0))
    return norm


def parameter_groups(model: LanguageModel, weight_decay: float, decay_all: bool = False) -> list[dict[str, Any]]:
    """Weight matrices, which decay, and the rest (embeddings, norms, biases), which does not; none is empty."""
    spared = {id(parameter) for parameter in model.undecayed_parameters()}
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        (decaying if decay_all or id(parameter) not in spared else others).append(parameter)
    groups = [{"params": decaying, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Takes up an optimizer's saved state, but not its options: those it was made with hold.

    So a training that goes on with another weight decay or other betas does so, and nothing is silently ignored.

    Args:
        optimizer: newly made.
        state: from `state_dict` of one of the same kind over the same weights.
    """
    # The learning rate is set before each update; until then it is that of the last one.
    options = [{key: group[key] for key in group.keys() - {"params", "lr"}} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)
