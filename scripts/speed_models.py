"""What `speed_worker.py` times: the reference made of PyTorch's stock modules, and ours.

Shape legend: B batch, T time, V vocabulary.
"""

import functools
import time
from typing import Any

import torch
import torch.nn.functional as F
from speed_worker import Step, Way, time_of
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
from torch_linguist.evaluation import stream_nll
from torch_linguist.model import LanguageModel
from torch_linguist.model.precision import autocast
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
"""At 5 SGD is unstable on the example's model: what the last bit rounds away is a tenth of the loss 60 steps later."""


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

    def __init__(self, way: Way, corpus: TokenizedCorpus) -> None:
        self.corpus, self.way = corpus, way
        torch.manual_seed(1)
        batches = ContiguousBatches(corpus.train, *way.batch)
        vocab_size = corpus.tokenizer.vocab_size
        if way.stock:
            model = stock_model(way, vocab_size).to(way.device)
            self.step = stock_step(model, batches, way)
        else:
            self.model = own_model(way, vocab_size).to(way.device)
            self.step = own_step(self.model, corpus, batches, way)

    def steps(self, count: int) -> list[float]:
        """Seconds of each of so many steps."""
        wait = torch.cuda.synchronize if self.way.device == "cuda" else lambda: None
        # The reference runs as the example script does, which leaves the processor's mode as it is.
        if self.way.stock:
            return [time_of(self.step, wait) for _ in range(count)]
        with denormals_flushed():
            return [time_of(self.step, wait) for _ in range(count)]

    def score(self, tokens: int, precision: str) -> dict[str, float]:
        """Tokens a second and loss of scoring the first tokens of the validation split."""
        device = torch.device(self.way.device)
        with denormals_flushed():
            begin = time.perf_counter()
            parts = list(stream_nll(self.model, self.corpus.valid, tokens, precision=precision))
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - begin
        count = sum(len(part) for part in parts)
        return {"tokens/s": count / seconds, "loss": float(sum(part.sum() for part in parts)) / count}

    def device_peak_mib(self) -> float:
        """Peak memory of a GPU; 0 on a CPU."""
        return torch.cuda.max_memory_allocated() / 2**20 if self.way.device == "cuda" else 0.0


def load_corpus(data: str) -> TokenizedCorpus:
    """WikiText-2 out of a folder, its token streams cached."""
    return prepare(WikiTextCorpus(data), WordTokenizerTrainer())


def stock_model(way: Way, vocab_size: int) -> nn.Module:
    """The reference."""
    if way.family == "transformer":
        return StockTransformer(vocab_size, way.size, way.heads, way.layers, way.batch[1])
    return StockRecurrent(FAMILIES[way.family][1], vocab_size, way.size, way.layers, way.dropout)


def own_model(way: Way, vocab_size: int) -> LanguageModel:
    """Ours, of the same sizes."""
    if way.family == "transformer":
        length, tied = way.batch[1], False
        return Transformer(
            vocab_size, way.size, way.layers, way.heads, context_length=length, output=way.output, tied=tied
        )
    return FAMILIES[way.family][0](vocab_size, way.size, way.size, way.layers, way.dropout, output=way.output)


def stock_step(model: nn.Module, batches: ContiguousBatches, way: Way) -> Step:
    """A training step of the reference; returns its loss."""
    optimizer = (torch.optim.SGD if way.optimizer == "sgd" else torch.optim.AdamW)(
        model.parameters(), lr=LEARNING_RATES[way.optimizer]
    )
    carried: list[Any] = [None]
    model.train()

    def step() -> float:
        batch: Batch = batches.next()
        tokens, targets = batch.tokens.to(way.device), batch.targets.to(way.device)
        state = None if batch.reset else detached(carried[0])
        optimizer.zero_grad()
        with autocast(torch.device(way.device), way.precision):
            log_probabilities, carried[0] = model(tokens, state)
            loss = F.nll_loss(log_probabilities.reshape(-1, log_probabilities.shape[-1]), targets.reshape(-1))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        return float(loss.detach())

    return step


def own_step(model: LanguageModel, corpus: TokenizedCorpus, batches: ContiguousBatches, way: Way) -> Step:
    """A training step of ours; returns its loss as a tensor, which nobody waits for."""
    model.prepare_vocabulary(torch.from_numpy(corpus.token_counts()))
    kind = SGD if way.optimizer == "sgd" else functools.partial(torch.optim.AdamW, fused=True)
    model.use_sparse_gradients(takes_sparse_gradients(model, kind, 0.0))
    optimizer = build_optimizer(model, kind, LEARNING_RATES[way.optimizer], 0.0)
    return Loop(model, optimizer, batches, gradient_clip=0.25, precision=way.precision).update


def detached(state: Any) -> Any:
    """A recurrent state cut off from its past: None, a tensor, or a pair of them."""
    if isinstance(state, tuple):
        return tuple(part.detach() for part in state)
    return None if state is None else state.detach()


def curves(data: str, steps: int, precision: str) -> list[tuple[float, float]]:
    """Losses of the reference and of ours from the same weights on the same batches, without dropout."""
    torch.manual_seed(1)
    corpus = load_corpus(data)
    way = Way("curve", layers=2, precision=precision)
    vocab_size = corpus.tokenizer.vocab_size
    model = own_model(way, vocab_size)
    stock = StockRecurrent(nn.LSTM, vocab_size, way.size, way.layers, 0.0)
    with torch.no_grad():
        stock.embedding.weight.copy_(model.get_parameter("embedding.weight"))
        stock.output.weight.copy_(model.get_parameter("output.weight"))
        stock.output.bias.copy_(model.get_parameter("output.bias"))
        for index in range(way.layers):
            for name in ("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l"):
                own = model.get_parameter(f"layers.{index}.{name}0")
                stock.layers.get_parameter(f"{name}{index}").copy_(own)
    left = stock_step(stock, ContiguousBatches(corpus.train, *way.batch), Way("reference"))
    right = own_step(model, corpus, ContiguousBatches(corpus.train, *way.batch), way)
    with denormals_flushed():
        return [(float(left()), float(right())) for _ in range(steps)]
