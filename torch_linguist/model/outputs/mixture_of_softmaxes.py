"""The mixture of softmaxes on top of any output layer.

Shape legend: V vocabulary, D width of the hidden vector, N = B * T, K softmaxes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.model.outputs.output import LinearOutput, OutputLayer, widened


class MixtureOutput(OutputLayer):
    """Mixture of softmaxes (Yang et al. 2018, "Breaking the softmax bottleneck").

    Each hidden vector is mapped to K others, which share one output layer; their distributions are mixed with weights
    that depend on the hidden vector too. Unlike in the paper, the vectors are not dropped out again.

    Args:
        inner: output layer of the components.
        input_size: D.
        count: number of components K.
    """

    is_affine = False

    def __init__(self, inner: OutputLayer, input_size: int, count: int) -> None:
        super().__init__()
        self.inner = inner
        self.may_skip_weights = inner.may_skip_weights
        self.samples_vocabulary = inner.samples_vocabulary
        self.count: int = count
        self.prior = nn.Linear(input_size, count, bias=False)
        self.latent = nn.Linear(input_size, count * input_size)
        nn.init.zeros_(self.latent.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        prior, latents = self._parts(hidden)
        mixed = prior[..., :1] + torch.log_softmax(self.inner(latents[0]), dim=-1)
        # One at a time, because K distributions [..., V] may not fit into memory.
        for place in range(1, self.count):
            component = prior[..., place : place + 1] + torch.log_softmax(self.inner(latents[place]), dim=-1)
            mixed = torch.logaddexp(mixed, component)
        return mixed

    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        prior, latents = self._parts(hidden)
        # One call: a sampled softmax then draws the same sample for every component.
        parts = self.inner.nll(torch.cat(latents), targets.repeat(self.count)).view(self.count, -1)
        return -torch.logsumexp(prior.T.to(parts.dtype) - parts, dim=0)

    def start_at(self, log_probabilities: Tensor) -> bool:
        return self.inner.start_at(log_probabilities)

    def order_by(self, token_counts: Tensor) -> None:
        self.inner.order_by(token_counts)

    def use_sparse_gradients(self, enabled: Callable[[nn.Parameter], bool]) -> None:
        self.inner.use_sparse_gradients(enabled)

    def draw_sample(self, targets: Tensor, generator: torch.Generator, hidden: Tensor | None = None) -> None:
        self.inner.draw_sample(targets, generator, None if hidden is None else torch.cat(self._parts(hidden)[1]))

    def set_training_loss(self, label_smoothing: float, z_loss: float) -> None:
        for name, value in (("label_smoothing", label_smoothing), ("z_loss", z_loss)):
            if value:
                raise ConfigError(f"trainer.{name}={value}: needs model.num_softmaxes=1, or set trainer.{name}=0")

    def linear_layers(self) -> LinearOutput:
        raise LinguistError(f"--quantize: model.num_softmaxes={self.count} cannot be quantized; use --jit")

    def _parts(self, hidden: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the log-weights [..., K] of the components, and the hidden vector [..., D] of each."""
        prior = torch.log_softmax(widened(self.prior(hidden)), dim=-1)
        return prior, list(torch.tanh(self.latent(hidden)).chunk(self.count, dim=-1))
