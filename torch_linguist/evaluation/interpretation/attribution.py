"""Attribution of a prediction to the tokens of its context: occlusion for every model, gradients for neural models.

Shape legend: B batch, T tokens of a context, D embedding, V vocabulary.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.interpretation.contexts import Ids, target_nll
from torch_linguist.model import LanguageModel, device_of, evaluating

STEPS = 64
"""Points on the path of integrated gradients."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GradientAttribution:
    """Contribution of each token of a context to the log-probability of the target, in nats.

    Attributes:
        integrated: integrated gradients, float64 [T].
        input_x_gradient: embedding times gradient, float64 [T].
        difference: log-probability of the target after the context minus that after the baseline. The integrated
            gradients add up to it, except for the error of the integral.
        delta: that error, as reported by captum.

    Example:
        >>> GradientAttribution(np.array([0.5, 1.0]), np.array([0.4, 0.9]), difference=1.5, delta=0.0).difference
        1.5
    """

    integrated: Floats
    input_x_gradient: Floats
    difference: float
    delta: float


def has_captum() -> bool:
    """Return whether captum, the library for attribution by gradients, is installed.

    Example:
        >>> isinstance(has_captum(), bool)
        True
    """
    return importlib.util.find_spec("captum") is not None


def occlusion(model: LanguageModel, context: Ids, target: int) -> Floats:
    """Measure how much less likely the target becomes when each token of its context is left out, in nats.

    The token is removed and the tokens before it move up, so that no placeholder is needed, which a model may never
    have seen. Tokens outside the window of an n-gram model get exactly 0.

    Args:
        model: any model.
        context: ids of at least two tokens [T].
        target: id of the next token.

    Returns:
        log p(target | context) - log p(target | context without the token), [T].

    Raises:
        LinguistError: the context has fewer than two tokens.

    Example:
        >>> context = np.array(corpus.tokenizer.encode("the cat sat"))
        >>> occlusion(model, context, target=2).tolist()[:2]  # a bigram model sees one word
        [0.0, 0.0]
    """
    size = len(context)
    if size < 2:
        raise LinguistError(f"a context of {size} tokens: occlusion takes at least 2")
    without = np.array([np.delete(context, place) for place in range(size)])
    whole = target_nll(model, context[None], np.array([target]))
    return target_nll(model, without, np.full(size, target)) - whole


@torch.inference_mode()
def occlusion_matrix(model: LanguageModel, ids: Ids, eos_id: int) -> Floats:
    """Measure occlusion for all predictions of a passage at once.

    Args:
        model: any model.
        ids: passage of at least two tokens [T]; the first is predicted from `<eos>`.
        eos_id: id of `<eos>`.

    Returns:
        Matrix [T, T]: row t, column s < t holds the nats that token t costs more without token s; NaN elsewhere.

    Raises:
        LinguistError: the passage has fewer than two tokens.

    Example:
        >>> occlusion_matrix(model, np.array(corpus.tokenizer.encode("the cat sat")), corpus.tokenizer.eos_id).shape
        (3, 3)
    """
    size = len(ids)
    if size < 2:
        raise LinguistError(f"a passage of {size} tokens: occlusion takes at least 2")
    inputs, device = np.concatenate([[eos_id], ids[:-1]]).astype(np.int64), device_of(model)

    def nll(rows: Ids, targets: Ids) -> Floats:
        tokens, wanted = (torch.from_numpy(part).to(device) for part in (rows, targets))
        found, _ = model.nll(tokens, wanted, model.initial_state(len(rows)))
        return np.asarray(found.double().cpu().numpy())

    # Without input i (token i - 1), the input before it predicts token i; later predictions keep their positions.
    rows = np.array([np.delete(inputs, place) for place in range(1, size)])
    targets = np.array([np.delete(ids, place - 1) for place in range(1, size)])
    with evaluating(model):
        whole = nll(inputs[None], ids[None].astype(np.int64))[0]
        without = nll(rows, targets.astype(np.int64))
    matrix = np.full((size, size), np.nan)
    for place in range(1, size):
        matrix[place:, place - 1] = without[place - 1, place - 1 :] - whole[place:]
    return matrix


def log_probability(model: LanguageModel, embedded: Tensor, target: int) -> Tensor:
    """Return the log-probability [B] of the target after embedded contexts [B, T, D].

    Example:
        >>> network = GRU(20, embedding_dim=4, hidden_size=8).eval()
        >>> log_probability(network, torch.zeros(2, 3, 4), target=5).shape
        torch.Size([2])
    """
    hidden, _ = model.encode(embedded, model.initial_state(len(embedded)))
    targets = torch.full((len(embedded),), target, device=embedded.device)
    return -model.hidden_nll(hidden[:, -1:], targets[:, None])[:, 0]


def embedding_of(model: LanguageModel) -> nn.Embedding:
    """Return the input embedding of a model.

    Raises:
        LinguistError: the model has none.

    Example:
        >>> embedding_of(GRU(20, embedding_dim=4, hidden_size=8))
        Embedding(20, 4)
    """
    if model.input_embedding is None:
        raise LinguistError(f"a {type(model).__name__} has no embedding; use rnn, lstm, gru or transformer")
    return model.input_embedding


def mean_embedding(model: LanguageModel, counts: NDArray[np.int64]) -> Tensor:
    """Return the mean embedding of the tokens of train [D], the baseline of integrated gradients.

    Example:
        >>> mean_embedding(GRU(3, embedding_dim=4, hidden_size=8), np.array([5, 3, 2])).shape
        torch.Size([4])
    """
    weight = embedding_of(model).weight.detach()
    shares = torch.from_numpy(counts / counts.sum()).to(weight)
    return shares @ weight


def gradient_attribution(
    model: LanguageModel, context: Ids, target: int, baseline: Tensor, steps: int = STEPS
) -> GradientAttribution:
    """Compute integrated gradients (Sundararajan et al. 2017) and input × gradient, both by captum.

    Args:
        model: a model with embeddings; its mode (train or eval) is preserved.
        context: ids [T].
        target: id of the next token.
        baseline: embedding [D] that represents no particular word, used at every position.
        steps: points of the integral (Gauss–Legendre).

    Raises:
        LinguistError: captum is not installed.

    Example:
        >>> network = GRU(20, embedding_dim=4, hidden_size=8, dropout=0.0)
        >>> found = gradient_attribution(network, np.array([3, 4, 5]), target=6, baseline=torch.zeros(4))
        >>> bool(abs(found.integrated.sum() - found.difference) < 1e-3)
        True
    """
    if not has_captum():
        raise LinguistError('attribution by gradients needs captum: pip install "torch-linguist[analyze]"')
    from captum.attr import InputXGradient, IntegratedGradients

    def forward(embedded: Tensor) -> Tensor:
        return log_probability(model, embedded, target)

    tokens = torch.from_numpy(np.asarray(context, np.int64))[None].to(device_of(model))
    embedded = embedding_of(model)(tokens).detach()
    start = baseline.to(embedded).expand_as(embedded)
    # cuDNN's recurrent layers have no backward pass in eval mode, and train mode would enable dropout.
    with evaluating(model), torch.backends.cudnn.flags(enabled=False), _frozen(model):
        integrated, delta = IntegratedGradients(forward).attribute(
            embedded, start, n_steps=steps, internal_batch_size=steps, return_convergence_delta=True
        )
        product = InputXGradient(forward).attribute(embedded.requires_grad_())
        difference = float(forward(embedded.detach()) - forward(start))
    return GradientAttribution(_by_token(integrated), _by_token(product), difference, float(delta[0]))


def _by_token(attributions: Tensor) -> Floats:
    """Sum over the features of each token: [1, T, D] to [T]."""
    return np.asarray(attributions.detach().double().sum(-1)[0].cpu().numpy())


@contextmanager
def _frozen(model: LanguageModel) -> Iterator[None]:
    """Disable gradients of the weights; only the inputs need them."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
