"""Models that `speed_worker.py` times: a reference of PyTorch's stock modules, and the models of this package.

Shape legend: B batch, T time, V vocabulary.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from speed_setup import Step, StepSetup
from torch import Tensor, nn

from torch_linguist import GRU, LSTM, RNN, Transformer
from torch_linguist.data import (
    Batch,
    ContiguousBatches,
    TokenizedCorpus,
    WikiTextCorpus,
    WordTokenizerTrainer,
    prepare,
)
from torch_linguist.distributed.data_parallel import DataParallel
from torch_linguist.evaluation import stream_nll
from torch_linguist.model import LanguageModel
from torch_linguist.model.module_modes import autocast
from torch_linguist.optim import SGD
from torch_linguist.optim.optimizers import build_optimizer, takes_sparse_gradients
from torch_linguist.trainer.device import denormals_flushed
from torch_linguist.trainer.loop import Loop

FAMILIES: dict[str, tuple[type[LanguageModel], type[nn.RNNBase]]] = {
    "lstm": (LSTM, nn.LSTM),
    "gru": (GRU, nn.GRU),
    "rnn": (RNN, nn.RNN),
}

LEARNING_RATES = {"sgd": 1.0, "adamw": 1e-3}
"""At the example's learning rate of 5 SGD is unstable: a difference in the last bit grows to 0.1 nats in 60 steps."""


class StockRecurrent(nn.Module):
    """Embedding, stacked recurrent layers, linear layer: stock modules alone."""

    def __init__(self, kind: type[nn.RNNBase], vocab_size: int, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Embedding(vocab_size, size)
        self.layers = kind(size, size, layers, dropout=dropout if layers > 1 else 0.0)  # type: ignore[arg-type]
        self.output = nn.Linear(size, vocab_size)

    def forward(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, state = self.layers(self.dropout(self.embedding(tokens.T)), state)
        return F.log_softmax(self.output(self.dropout(hidden)), dim=-1).transpose(0, 1), state


class StockTransformer(nn.Module):
    """Embedding, learned positions, `nn.TransformerEncoder` under a causal mask, linear layer."""

    def __init__(self, vocab_size: int, size: int, heads: int, layers: int, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, size)
        self.positions = nn.Parameter(torch.zeros(length, size))
        layer = nn.TransformerEncoderLayer(size, heads, 4 * size, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.output = nn.Linear(size, vocab_size)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden = self.layers(self.embedding(tokens) + self.positions, mask=self.mask, is_causal=True)
        return F.log_softmax(self.output(hidden), dim=-1), None


class Timed:
    """A model, its optimizer and its batches, ready for the next step."""

    def __init__(self, setup: StepSetup, corpus: TokenizedCorpus) -> None:
        self.corpus, self.setup = corpus, setup
        torch.manual_seed(1)
        batches = ContiguousBatches(corpus.train, *setup.batch)
        vocab_size = corpus.tokenizer.vocab_size
        if setup.stock:
            model = stock_model(setup, vocab_size).to(setup.device)
            self.step = stock_step(model, batches, setup)
        else:
            self.model = own_model(setup, vocab_size).to(setup.device)
            self.step = own_step(self.model, corpus, batches, setup)

    def steps(self, count: int) -> list[float]:
        """Return the seconds of each of `count` steps."""
        wait = torch.cuda.synchronize if self.setup.device == "cuda" else lambda: None
        # The reference leaves the processor's denormal mode unchanged, as the example does.
        if self.setup.stock:
            return [time_of(self.step, wait) for _ in range(count)]
        with denormals_flushed():
            return [time_of(self.step, wait) for _ in range(count)]

    def score(self, tokens: int, precision: str) -> dict[str, float]:
        """Return tokens per second and loss of scoring the first tokens of the validation split."""
        device = torch.device(self.setup.device)
        with denormals_flushed():
            begin = time.perf_counter()
            parts = list(stream_nll(self.model, self.corpus.valid, tokens, precision=precision))
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - begin
        count = sum(len(part) for part in parts)
        return {"tokens/s": count / seconds, "loss": float(sum(part.sum() for part in parts)) / count}

    def device_peak_mib(self) -> float:
        """Return the peak memory of a GPU; 0 on a CPU."""
        return torch.cuda.max_memory_allocated() / 2**20 if self.setup.device == "cuda" else 0.0


def time_of(step: Step, wait: Callable[[], None]) -> float:
    """Return the seconds of a step, including the work that it started on the device."""
    begin = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - begin


def load_corpus(data: str) -> TokenizedCorpus:
    """Load WikiText-2 from a folder, with cached token streams."""
    return prepare(WikiTextCorpus(data), WordTokenizerTrainer())


def stock_model(setup: StepSetup, vocab_size: int) -> nn.Module:
    """Build the reference."""
    if setup.family == "transformer":
        return StockTransformer(vocab_size, setup.size, setup.heads, setup.layers, setup.batch[1])
    return StockRecurrent(FAMILIES[setup.family][1], vocab_size, setup.size, setup.layers, setup.dropout)


def own_model(setup: StepSetup, vocab_size: int) -> LanguageModel:
    """Build our model with the same sizes."""
    if setup.family == "transformer":
        length, tied = setup.batch[1], False
        return Transformer(
            vocab_size, setup.size, setup.layers, setup.heads, context_length=length, output=setup.output, tied=tied
        )
    return FAMILIES[setup.family][0](
        vocab_size, setup.size, setup.size, setup.layers, setup.dropout, output=setup.output
    )


def stock_step(model: nn.Module, batches: ContiguousBatches, setup: StepSetup) -> Step:
    """Return a training step of the reference; it returns the loss."""
    optimizer = (torch.optim.SGD if setup.optimizer == "sgd" else torch.optim.AdamW)(
        model.parameters(), lr=LEARNING_RATES[setup.optimizer]
    )
    carried: list[Any] = [None]
    model.train()

    def step() -> float:
        batch: Batch = batches.next()
        tokens, targets = batch.tokens.to(setup.device), batch.targets.to(setup.device)
        state = None if batch.reset else detached(carried[0])
        optimizer.zero_grad()
        with autocast(torch.device(setup.device), setup.precision):
            log_probabilities, carried[0] = model(tokens, state)
            loss = F.nll_loss(log_probabilities.reshape(-1, log_probabilities.shape[-1]), targets.reshape(-1))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        return float(loss.detach())

    return step


def own_step(model: LanguageModel, corpus: TokenizedCorpus, batches: ContiguousBatches, setup: StepSetup) -> Step:
    """Return a training step of our model; it returns the loss as a tensor, without synchronization."""
    model.prepare_vocabulary(torch.from_numpy(corpus.token_counts()))
    kind = SGD if setup.optimizer == "sgd" else functools.partial(torch.optim.AdamW, fused=True)
    model.use_sparse_gradients(takes_sparse_gradients(model, kind, 0.0))
    optimizer = build_optimizer(model, kind, LEARNING_RATES[setup.optimizer], 0.0)
    step = DataParallel(model, precision=setup.precision)
    return Loop(model, optimizer, batches, gradient_clip=0.25, step=step).update


def detached(state: Any) -> Any:
    """Detach a recurrent state: None, a tensor, or a pair of tensors."""
    if isinstance(state, tuple):
        return tuple(part.detach() for part in state)
    return None if state is None else state.detach()


def curves(data: str, steps: int, precision: str) -> list[tuple[float, float]]:
    """Return the losses of the reference and of our model, from the same weights on the same batches."""
    torch.manual_seed(1)
    corpus = load_corpus(data)
    setup = StepSetup("curve", layers=2, precision=precision)
    vocab_size = corpus.tokenizer.vocab_size
    model = own_model(setup, vocab_size)
    stock = StockRecurrent(nn.LSTM, vocab_size, setup.size, setup.layers, 0.0)
    with torch.no_grad():
        stock.embedding.weight.copy_(model.get_parameter("embedding.weight"))
        stock.output.weight.copy_(model.get_parameter("output.weight"))
        stock.output.bias.copy_(model.get_parameter("output.bias"))
        for index in range(setup.layers):
            for name in ("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l"):
                own = model.get_parameter(f"layers.{index}.{name}0")
                stock.layers.get_parameter(f"{name}{index}").copy_(own)
    left = stock_step(stock, ContiguousBatches(corpus.train, *setup.batch), StepSetup("reference"))
    right = own_step(model, corpus, ContiguousBatches(corpus.train, *setup.batch), setup)
    with denormals_flushed():
        return [(float(left()), float(right())) for _ in range(steps)]
