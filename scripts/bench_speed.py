"""Training and scoring speed beside PyTorch's stock modules, taken in turns in one run, with the machine's own ceiling.

    python scripts/bench_speed.py                            # everything, on WikiText-2 in ../shared/data/wikitext-2
    python scripts/bench_speed.py --parts same --rounds 8    # one table
    python scripts/bench_speed.py --parts curve              # 500 steps of both from the same weights

The reference does what the well-known example script does: embedding, `nn.LSTM` (or `nn.TransformerEncoder`), a linear
layer, log-softmax and NLL over the whole vocabulary, in float32. Ours and the reference run a few steps each in turns,
so that a busy machine slows both; the ratio is that of the medians. Peak memory is that of a process of its own, less
what Python, torch and the corpus take before the model is built.
"""

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from torch_linguist import GRU, LSTM, RNN, Transformer
from torch_linguist.data import ContiguousBatches, TokenizedCorpus, WikiTextCorpus, WordTokenizerTrainer, prepare
from torch_linguist.evaluation import stream_nll
from torch_linguist.model import LanguageModel
from torch_linguist.trainer.device import denormals_flushed
from torch_linguist.trainer.loop import Loop

WIKITEXT = Path(__file__).resolve().parents[1] / "../shared/data/wikitext-2"
PARTS = ("same", "transformer", "recurrent", "memory", "score", "curve")
FAMILIES: dict[str, tuple[type[LanguageModel], type[nn.RNNBase]]] = {
    "lstm": (LSTM, nn.LSTM),
    "gru": (GRU, nn.GRU),
    "rnn": (RNN, nn.RNN),
}
Step = Callable[[], Any]
Row = dict[str, Any]


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
    """Embedding, learnt positions, `nn.TransformerEncoder` under a causal mask, linear layer."""

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


def recurrent_weights(family: str, size: int, layers: int) -> int:
    """Weights in the matrix products of recurrent layers whose input is as wide as they are."""
    return {"lstm": 4, "gru": 3, "rnn": 1}[family] * 2 * size**2 * layers


def detached(state: Any) -> Any:
    """A recurrent state cut off from its past: None, a tensor, or a pair of them."""
    if isinstance(state, tuple):
        return tuple(part.detach() for part in state)
    return None if state is None else state.detach()


def reference(model: nn.Module, batches: ContiguousBatches, lr: float, sgd: bool = True) -> Step:
    """A training step of the reference; returns its loss."""
    optimizer = (torch.optim.SGD if sgd else torch.optim.AdamW)(model.parameters(), lr=lr)
    carried: list[Any] = [None]
    model.train()

    def step() -> float:
        batch = batches.next()
        state = None if batch.reset else detached(carried[0])
        optimizer.zero_grad()
        log_probabilities, carried[0] = model(batch.tokens, state)
        loss = F.nll_loss(log_probabilities.reshape(-1, log_probabilities.shape[-1]), batch.targets.reshape(-1))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        return float(loss.detach())

    return step


def ours(
    model: LanguageModel,
    corpus: TokenizedCorpus,
    batches: ContiguousBatches,
    precision: str,
    lr: float,
    sgd: bool = True,
) -> Step:
    """A training step of ours; returns its loss as a tensor, which nobody waits for."""
    model.prepare_vocabulary(torch.from_numpy(corpus.token_counts()))
    optimizer = (torch.optim.SGD if sgd else torch.optim.AdamW)(model.parameters(), lr=lr, fused=True)
    loop = Loop(model, optimizer, batches, gradient_clip=0.25, precision=precision)
    return loop.update


class Bench:
    """The corpus, the rounds, and the rows that come out."""

    def __init__(self, corpus: TokenizedCorpus, rounds: int, steps: int, found: dict[str, float]) -> None:
        self.corpus, self.rounds, self.steps, self.ceiling = corpus, rounds, steps, found
        self.vocab_size = corpus.tokenizer.vocab_size
        self.rows: list[Row] = []

    def batches(self, batch_size: int, length: int) -> ContiguousBatches:
        return ContiguousBatches(self.corpus.train, batch_size, length)

    def stock(self, family: str, size: int, layers: int, dropout: float, batch: tuple[int, int]) -> Step:
        model = StockRecurrent(FAMILIES[family][1], self.vocab_size, size, layers, dropout)
        return reference(model, self.batches(*batch), 1.0)

    def own(
        self, family: str, size: int, layers: int, dropout: float, batch: tuple[int, int], output: str, precision: str
    ) -> Step:
        model = FAMILIES[family][0](self.vocab_size, size, size, layers, dropout, output=output)
        return ours(model, self.corpus, self.batches(*batch), precision, 1.0)

    def in_turns(self, title: str, tokens: int, steps: dict[str, Step], weights: int) -> None:
        """Times several ways to do a step; the first one is the reference.

        Where the whole vocabulary is in the step, its share of the ceiling is told: six operations a token for each of
        the `weights` in matrix products (forward, and twice that backward), over what the same products reach alone.
        """
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for step in steps.values():
            step()
        for _ in range(self.rounds):
            for name, step in steps.items():
                for _ in range(self.steps):
                    begin = time.perf_counter()
                    step()
                    seconds[name].append(time.perf_counter() - begin)
        base = statistics.median(seconds[next(iter(steps))])
        for name, taken in seconds.items():
            median = statistics.median(taken)
            row: Row = {"what": title, "how": name, "ms": median * 1e3, "tokens/s": tokens / median}
            row["ratio"] = base / median
            if self.ceiling and "adaptive" not in name and "sampled" not in name:
                limit = self.ceiling["bf16 GFLOP/s" if "bf16" in name else "fp32 GFLOP/s"]
                row["share"] = 6 * weights * tokens / median / 1e9 / limit
            self.rows.append(row)

    def same(self) -> None:
        """The well-known example's model: two layers of 200 units, batch 20, 35 steps, the whole vocabulary, SGD."""
        batch, about = (20, 35), ("lstm", 200, 2, 0.2, (20, 35))
        self.in_turns(
            "LSTM 2 x 200, full",
            math.prod(batch),
            {
                "stock": self.stock(*about),
                "ours fp32": self.own(*about, "full", "fp32"),
                "ours bf16": self.own(*about, "full", "bf16"),
                "ours bf16, adaptive": self.own(*about, "adaptive", "bf16"),
                "ours bf16, sampled": self.own(*about, "sampled", "bf16"),
            },
            recurrent_weights("lstm", 200, 2) + 200 * self.vocab_size,
        )

    def transformer(self) -> None:
        """Two layers of 256, four heads, feed-forward 1,024, windows of 64."""
        batches = self.batches(16, 64)
        stock = StockTransformer(self.vocab_size, 256, 4, 2, 64)
        steps = {"stock": reference(stock, batches, 1e-3, sgd=False)}
        for output, precision in (("full", "fp32"), ("full", "bf16"), ("adaptive", "bf16"), ("sampled", "bf16")):
            model = Transformer(self.vocab_size, 256, 2, 4, context_length=64, output=output, tied=False)
            steps[f"ours {output} {precision}"] = ours(model, self.corpus, self.batches(16, 64), precision, 1e-3, False)
        # Attention's own products are left out: windows of 64 make them a hundredth.
        self.in_turns("Transformer 2 x 256", 16 * 64, steps, 2 * 12 * 256**2 + 256 * self.vocab_size)

    def recurrent(self) -> None:
        """Each family at three sizes, one layer, batch 16, 64 steps."""
        for family in FAMILIES:
            for size in (256, 650, 1150):
                about = (family, size, 1, 0.0, (16, 64))
                steps = {"stock": self.stock(*about)}
                for output in ("full", "adaptive"):
                    steps[f"ours {output} bf16"] = self.own(*about, output, "bf16")
                steps["ours full fp32"] = self.own(*about, "full", "fp32")
                weights = recurrent_weights(family, size, 1) + size * self.vocab_size
                self.in_turns(f"{family} {size}", 16 * 64, steps, weights)

    def score(self) -> None:
        """Scoring of the validation split beside the training speed of the same model."""
        model = LSTM(self.vocab_size)
        step = ours(model, self.corpus, self.batches(16, 64), "bf16", 1e-3, sgd=False)
        self.in_turns("default LSTM", 16 * 64, {"training, adaptive": step}, 0)
        model.eval()
        begin = time.perf_counter()
        tokens = sum(len(part) for part in stream_nll(model, self.corpus.valid))
        seconds = time.perf_counter() - begin
        speed = tokens / seconds
        training = float(self.rows[-1]["tokens/s"])
        self.rows.append(
            {"what": "default LSTM", "how": "scoring", "ms": 0.0, "tokens/s": speed, "ratio": speed / training}
        )

    def curve(self, steps: int = 500) -> None:
        """The same weights, the same batches, no dropout: how far the losses of both lie apart."""
        model = LSTM(self.vocab_size, 200, 200, 2, 0.0, output="full")
        stock = StockRecurrent(nn.LSTM, self.vocab_size, 200, 2, 0.0)
        with torch.no_grad():
            stock.embedding.weight.copy_(model.embedding.weight)
            stock.output.weight.copy_(model.get_parameter("output.weight"))
            stock.output.bias.copy_(model.get_parameter("output.bias"))
            for index in range(2):
                for name in ("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l"):
                    own = model.get_parameter(f"layers.{index}.{name}0")
                    stock.layers.get_parameter(f"{name}{index}").copy_(own)
        left = reference(stock, self.batches(20, 35), 5.0)
        right = ours(model, self.corpus, self.batches(20, 35), "bf16", 5.0)
        losses = [(float(left()), float(right())) for _ in range(steps)]
        apart = max(abs(one / other - 1) for one, other in losses)
        print(
            f"{steps} steps of SGD from the same weights: last losses {losses[-1][0]:.4f} and {losses[-1][1]:.4f}, ",
            end="",
        )
        print(f"largest difference at any step {apart:.3%}")
        self.rows.append({"what": "curve", "how": f"{steps} steps", "largest difference": apart})


MEMORY_CASES = ("stock 20 x 35", "ours 20 x 35", "ours 64 x 70")


def memory_case(bench: Bench, name: str) -> float:
    """MiB at the peak of ten training steps above what was there before the model."""
    batch = (64, 70) if name.endswith("64 x 70") else (20, 35)
    about = ("lstm", 200, 2, 0.2, batch)
    before = resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Forgets the peak of what came before.
    step = bench.stock(*about) if name.startswith("stock") else bench.own(*about, "full", "bf16")
    for _ in range(10):
        step()
    return resident_mib("VmHWM") - before


def resident_mib(which: str) -> float:
    """Resident memory of this process in MiB: now (VmRSS), or its peak (VmHWM). Linux alone tells."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{which}:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def ceiling() -> dict[str, float]:
    """What the machine can do: matrix products in GFLOP/s, memory copies in GB/s; the best of five."""
    found = {}
    size = 2048
    for name, dtype in (("fp32 GFLOP/s", torch.float32), ("bf16 GFLOP/s", torch.bfloat16)):
        left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
        found[name] = 2 * size**3 / best_of_five(lambda left=left, right=right: left @ right) / 1e9  # type: ignore[misc]
    source = torch.zeros(2**26)
    target = torch.empty_like(source)
    found["copy GB/s"] = 2 * 4 * 2**26 / best_of_five(lambda: target.copy_(source)) / 1e9
    return found


def best_of_five(work: Callable[[], Any]) -> float:
    """Seconds of the fastest of five calls."""
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def show(rows: list[Row]) -> None:
    table = Table("what", "how", "ms a step", "tokens/s", "ratio", "share of ceiling")
    for row in rows:
        if "ms" in row:
            cells = (f"{row['ms']:.1f}" if row["ms"] else "", f"{row['tokens/s']:,.0f}", f"{row['ratio']:.2f}")
            share = f"{row['share']:.0%}" if "share" in row else ""
            table.add_row(row["what"], row["how"], *cells, share)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(WIKITEXT), help="folder with train.txt, valid.txt and test.txt")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=5, help="turns that each way to do a step gets")
    parser.add_argument("--steps", type=int, default=5, help="steps a turn")
    parser.add_argument("--json", type=Path, default=Path("bench_speed.json"), help="where the figures are written")
    parser.add_argument("--memory-case", choices=MEMORY_CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    corpus = prepare(WikiTextCorpus(arguments.data), WordTokenizerTrainer())
    found = {} if arguments.memory_case else ceiling()
    bench = Bench(corpus, arguments.rounds, arguments.steps, found)
    with denormals_flushed():
        if arguments.memory_case:
            print(memory_case(bench, arguments.memory_case))
            return
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ", end="")
        print(", ".join(f"{name} {value:,.0f}" for name, value in found.items()))
        for part in arguments.parts:
            if part != "memory":
                getattr(bench, part)()
    if "memory" in arguments.parts:
        for name in MEMORY_CASES:
            command = [sys.executable, __file__, "--data", arguments.data, "--memory-case", name]
            peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            bench.rows.append({"what": "peak memory", "how": name, "MiB": peak})
            print(f"peak memory, {name}: {peak:,.0f} MiB above the start")
    show(bench.rows)
    arguments.json.write_text(json.dumps({"ceiling": found, "rows": bench.rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
