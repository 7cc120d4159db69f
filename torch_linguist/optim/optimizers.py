"""Optimizers: which weights decay, sparse gradients, gradient clipping, and fused kernels where they exist."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torch_linguist.distributed.stored_shards import scattered_state
from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel
from torch_linguist.optim.row_optimizer import FUSED_DEVICES


def build_optimizer(
    model: LanguageModel,
    factory: Callable[..., Optimizer],
    lr: float,
    weight_decay: float,
    decay_all: bool = False,
    layer_decay: float = 1.0,
    decay_embeddings: bool = False,
) -> Optimizer:
    """Build an optimizer for all trainable weights of a model.

    Args:
        model: model to train; it is not modified.
        factory: called with parameter groups, `lr` and `weight_decay`, such as `torch.optim.AdamW`.
        lr: learning rate.
        weight_decay: weight decay of the weight matrices. Embeddings, norms and biases do not decay by default.
        decay_all: whether weight decay applies to all weights.
        layer_decay: factor of the learning rate from each layer to the one below it (discriminative rates; Howard &
            Ruder 2018 use 1 / 2.6).
        decay_embeddings: whether weight decay also applies to embeddings, and to outputs that share their weight.

    Raises:
        ConfigError: the learning rate is not above zero, or the weight decay is negative.

    Example:
        >>> network = LSTM(100, embedding_dim=8, hidden_size=8)
        >>> optimizer = build_optimizer(network, torch.optim.AdamW, lr=3e-3, weight_decay=0.1)
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [0.1, 0.0]
    """
    if not lr > 0:
        raise ConfigError(f'optim.lr={lr}: must be "auto" or a number greater than 0')
    if not weight_decay >= 0:
        raise ConfigError(f'optim.weight_decay={weight_decay}: must be "auto" or a number of at least 0')
    if not 0 < layer_decay <= 1:
        raise ConfigError(f"optim.layer_decay={layer_decay}: must be above 0 and at most 1")
    bound = getattr(factory, "keywords", {})
    extra: dict[str, Any] = {}
    if (
        "fused" in inspect.signature(_class_of(factory)).parameters
        and "fused" not in bound
        and not bound.get("foreach")
    ):
        extra["fused"] = all(parameter.device.type in FUSED_DEVICES for parameter in model.parameters())
    groups = parameter_groups(model, weight_decay, decay_all, layer_decay, decay_embeddings)
    if needs_whole_matrices(factory):
        groups = with_hidden_matrices(model, groups)
    return factory(groups, lr=lr, weight_decay=weight_decay, **extra)


def takes_sparse_gradients(
    model: LanguageModel,
    factory: Callable[..., Optimizer],
    weight_decay: float,
    decay_all: bool = False,
    decay_embeddings: bool = False,
) -> Callable[[nn.Parameter], bool]:
    """Return a function that tells whether the optimizer takes the sparse gradient of a weight.

    Args:
        model: model to train.
        factory: see `build_optimizer`, as all other arguments.
        weight_decay: weight decay of the weight matrices.
        decay_all: whether weight decay applies to all weights.
        decay_embeddings: whether it applies to embeddings.
    """
    takes = getattr(_class_of(factory), "takes_sparse_gradients", lambda decays, arguments: False)
    spared = _spared(model, decay_all, decay_embeddings)

    def takes_gradient(weight: nn.Parameter) -> bool:
        decays = weight_decay > 0 and id(weight) not in spared
        return bool(takes(decays, getattr(factory, "keywords", {})))

    return takes_gradient


def needs_whole_matrices(factory: Callable[..., Optimizer]) -> bool:
    """Return whether an optimizer works on whole hidden matrices, as `Muon` does."""
    return bool(getattr(_class_of(factory), "splits_hidden_matrices", False))


def _class_of(factory: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """Return the class of a factory whose arguments may be bound by `functools.partial`."""
    return getattr(factory, "func", factory)


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float | None) -> Tensor:
    """Scale the gradients down to a norm of at most `limit`, without waiting for the device.

    Args:
        parameters: weights with dense or sparse gradients; sparse ones are coalesced.
        limit: largest norm; None measures the norm only.

    Returns:
        The norm before scaling; scalar tensor.
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


def parameter_groups(
    model: LanguageModel,
    weight_decay: float,
    decay_all: bool = False,
    layer_decay: float = 1.0,
    decay_embeddings: bool = False,
) -> list[dict[str, Any]]:
    """Return the parameter groups: weights that decay, and the others (embeddings, norms, biases). None is empty.

    With a layer decay there are two such groups for each layer, those of the top layer first. Each has its factor of
    the learning rate in `lr_scale`.
    """
    spared = _spared(model, decay_all, decay_embeddings)
    layers = [list(model.parameters())] if layer_decay == 1 else model.layer_groups()[::-1]
    groups: list[dict[str, Any]] = []
    for depth, layer in enumerate(layers):
        trained = [parameter for parameter in layer if parameter.requires_grad]
        decaying = [parameter for parameter in trained if id(parameter) not in spared]
        others = [parameter for parameter in trained if id(parameter) in spared]
        for members, decay in ((decaying, weight_decay), (others, 0.0)):
            scale = {} if layer_decay == 1 else {"lr_scale": layer_decay**depth}
            groups.append({"params": members, "weight_decay": decay, **scale})
    return [group for group in groups if group["params"]]


def _spared(model: LanguageModel, decay_all: bool, decay_embeddings: bool) -> set[int]:
    """Return the identities of the parameters that weight decay spares."""
    if decay_all:
        return set()
    return {id(weight) for weight in model.undecayed_parameters() if not (decay_embeddings and weight.dim() == 2)}


def with_hidden_matrices(model: LanguageModel, groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return parameter groups with the hidden matrices in groups of their own.

    Args:
        model: model of the parameters.
        groups: result of `parameter_groups`.

    Returns:
        The groups without the hidden matrices, then theirs; `stacked` is the number of matrices in each weight.
    """
    stacked = {id(matrix): count for matrix, count in model.hidden_matrices()}
    found: list[dict[str, Any]] = []
    for count in (0, *sorted(set(stacked.values()))):
        for group in groups:
            params = [parameter for parameter in group["params"] if stacked.get(id(parameter), 0) == count]
            if params:
                found.append(group | {"params": params} | ({"stacked": count} if count else {}))
    return found


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group, times its `lr_scale` and `lr_ratio` if it has them."""
    for group in optimizer.param_groups:
        rate = lr * group.get("lr_scale", 1.0) * group.get("lr_ratio", 1.0)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Restore the saved state of an optimizer, but not its options.

    A training can therefore continue with another weight decay or other betas.

    Args:
        optimizer: new optimizer, whose options are kept.
        state: `state_dict` of an optimizer of the same class over the same weights.
    """
    # The learning rate is set before each update; until then it is the last one of the saved training.
    options = [{key: group[key] for key in group.keys() - {"params", "lr"}} for group in optimizer.param_groups]
    optimizer.load_state_dict(scattered_state(state, optimizer))
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)
