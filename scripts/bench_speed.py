"""Training and scoring speed compared with PyTorch's stock modules, and with the peak performance of the machine.

    python scripts/bench_speed.py  # everything, on WikiText-2 in ../shared/data/wikitext-2
    python scripts/bench_speed.py --parts same --rounds 8    # one table
    python scripts/bench_speed.py --parts curve              # 500 steps of both from the same weights

Each setup runs in a process of its own (`speed_worker.py`): the reference in an ordinary one, ours with the environment
variables that the commands of this project set. One row shows what the reference gains from these variables. The
processes take turns of a few steps, so that a busy machine slows all of them equally; ratios are those of the medians.
Peak memory is what a process needs beyond Python, torch and the corpus.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from speed_models import curves
from speed_setup import StepSetup
from speed_worker import Worker

WIKITEXT = Path(__file__).resolve().parents[1] / "../shared/data/wikitext-2"
PARTS = ("same", "transformer", "recurrent", "memory", "score", "curve", "cuda")
WIDTH = 130
"""Width of the table, also in a narrow window."""

Row = dict[str, Any]


class Bench:
    """Runs the setups in turns and collects the rows of the table."""

    def __init__(self, data: str, rounds: int, steps: int, found: dict[str, float], families: list[str]) -> None:
        self.data, self.rounds, self.steps, self.ceiling, self.families = data, rounds, steps, found, families
        self.rows: list[Row] = []

    def in_turns(self, title: str, setups: Iterable[StepSetup]) -> None:
        """Time a step of several setups; the first one is the reference.

        Where the whole vocabulary is in the step, its share of the ceiling is told: six operations a token for each
        weight in matrix products (forward, and twice that backward), over what the same products reach alone.
        """
        workers = [Worker(setup, self.data) for setup in setups]
        seconds: list[list[float]] = [[] for _ in workers]
        for worker in workers:
            worker.steps(3)
        for _ in range(self.rounds):
            for worker, taken in zip(workers, seconds, strict=True):
                taken += worker.steps(self.steps)
        medians = [statistics.median(taken) for taken in seconds]
        for worker, median in zip(workers, medians, strict=True):
            setup = worker.setup
            row: Row = {"what": title, "how": setup.name, "ms": median * 1e3, "tokens/s": setup.tokens / median}
            row["ratio"] = medians[0] / median
            if setup.output == "full":
                limit = self.ceiling[f"{setup.device} {setup.precision} GFLOP/s"]
                row["share"] = 6 * setup.weights(worker.vocab_size) * setup.tokens / median / 1e9 / limit
            row["MiB"] = worker.memory()["device" if setup.device == "cuda" else "above"]
            self.rows.append(row)
            worker.close()

    def same(self) -> None:
        """Time the model of PyTorch's example: two layers of 200 units, batch 20, 35 steps, full vocabulary, SGD."""
        own = StepSetup("ours, full, fp32", layers=2, dropout=0.2)
        setups = [
            replace(own, name="stock", stock=True, tuned=False),
            replace(own, name="stock, our environment", stock=True),
            *outputs(own),
        ]
        self.in_turns("LSTM 2 x 200, 20 x 35 tokens, SGD", setups)

    def transformer(self) -> None:
        """Time a Transformer: two layers of 256, four heads, feed-forward 1,024, windows of 64."""
        own = StepSetup("ours, full, fp32", family="transformer", size=256, layers=2, batch=(16, 64), optimizer="adamw")
        setups = [
            replace(own, name="nn.TransformerEncoder", stock=True, tuned=False),
            replace(own, name="the same, our environment", stock=True),
            *outputs(own),
        ]
        self.in_turns("Transformer 2 x 256, 16 x 64 tokens, AdamW", setups)

    def recurrent(self) -> None:
        """Time each family at three sizes: one layer, batch 16, 64 steps."""
        for family in self.families:
            for size in (256, 650, 1150):
                own = StepSetup("full, fp32", family=family, size=size, batch=(16, 64))
                setups = [
                    replace(own, name="stock", stock=True, tuned=False),
                    own,
                    replace(own, name="full, bf16", precision="bf16"),
                    replace(own, name="adaptive, fp32", output="adaptive"),
                    replace(own, name="adaptive, bf16", precision="bf16", output="adaptive"),
                ]
                self.in_turns(f"{family} {size}", setups)

    def memory(self) -> None:
        """Time the same model with a batch of 64 and 70 steps."""
        worker = Worker(StepSetup("ours", layers=2, dropout=0.2, precision="bf16", batch=(64, 70)), self.data)
        worker.steps(10)
        found = worker.memory()
        worker.close()
        self.rows.append({"what": "LSTM 2 x 200, 64 x 70 tokens", "how": "ours, full, bf16", "MiB": found["above"]})
        print(f"64 x 70 tokens: {found['above']:,.0f} MiB above the start, {found['peak']:,.0f} MiB in all")

    def score(self, tokens: int = 10**9) -> None:
        """Time scoring the whole validation split, in turns with training the same model."""
        common = StepSetup("", size=384, batch=(16, 64), optimizer="adamw")
        transformer = replace(common, name="Transformer 2 x 256, full", family="transformer", size=256, layers=2)
        for setup in (
            replace(common, name="LSTM 384, adaptive", output="adaptive"),
            replace(common, name="LSTM 2 x 200, full", size=200, layers=2, batch=(20, 35), optimizer="sgd"),
            transformer,
            replace(transformer, name="Transformer 2 x 256, adaptive", output="adaptive"),
        ):
            for precision in ("fp32", "bf16"):
                worker = Worker(replace(setup, precision=precision), self.data)
                worker.steps(3)
                worker.score(2000, precision)
                training: list[float] = []
                scoring: list[float] = []
                for _ in range(2):
                    training += worker.steps(6)
                    scoring.append(worker.score(tokens, precision)["tokens/s"])
                worker.close()
                speed, trained = statistics.median(scoring), setup.tokens / statistics.median(training)
                what = f"{setup.name}, {precision}"
                self.rows.append({"what": what, "how": "training", "tokens/s": trained, "ratio": 1.0})
                self.rows.append({"what": what, "how": "scoring", "tokens/s": speed, "ratio": speed / trained})

    def curve(self, steps: int = 500) -> None:
        """Compare the losses of both models with the same weights and batches, without dropout."""
        for precision in ("bf16", "fp32"):
            losses = curves(self.data, steps, precision)
            differences = [abs(own / reference - 1) for reference, own in losses]
            apart, mean = max(differences), statistics.mean(differences)
            print(f"{steps} steps of SGD from the same weights, ours in {precision}: last losses ", end="")
            print(f"{losses[-1][0]:.4f} and {losses[-1][1]:.4f}, difference at a step {mean:.3%}, at most {apart:.3%}")
            row = {"what": "curve", "how": f"{steps} steps, {precision}", "mean difference": mean}
            self.rows.append(row | {"largest difference": apart})

    def cuda(self) -> None:
        """Time models for GPUs: AWD-LSTM's three layers of 1,150, and a Transformer of twelve layers, in bfloat16."""
        if not torch.cuda.is_available():
            print("part cuda: there is no CUDA device here, nothing is measured")
            return
        lstm = StepSetup("stock", True, False, "lstm", 1150, 3, (80, 70), "full", "bf16", 0.2, "adamw", device="cuda")
        transformer = replace(lstm, family="transformer", size=768, layers=12, heads=12, batch=(32, 256), dropout=0.0)
        for title, stock in (("LSTM 3 x 1150", lstm), ("Transformer 12 x 768", transformer)):
            own = replace(stock, stock=False, tuned=True)
            setups = [
                stock,
                *(replace(own, name=f"ours, {kind}", output=kind) for kind in ("full", "adaptive", "sampled")),
            ]
            self.in_turns(title, setups)


def outputs(own: StepSetup) -> list[StepSetup]:
    """Return the given setup (full output, float32) and the other outputs in bfloat16."""
    kinds = ("full", "adaptive", "sampled")
    return [own, *(replace(own, name=f"ours, {kind}, bf16", precision="bf16", output=kind) for kind in kinds)]


def ceiling(device: str) -> dict[str, float]:
    """Measure the machine: matrix products in GFLOP/s and memory copies in GB/s, the best of five."""
    found = {}
    size = 2048 if device == "cpu" else 8192
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
        seconds = best_of_five(lambda left=left, right=right: left @ right, device)  # type: ignore[misc]
        found[f"{device} {name} GFLOP/s"] = 2 * size**3 / seconds / 1e9
    source = torch.zeros(2**26, device=device)
    target = torch.empty_like(source)
    found[f"{device} copy GB/s"] = 2 * 4 * 2**26 / best_of_five(lambda: target.copy_(source), device) / 1e9
    return found


def best_of_five(work: Callable[[], Any], device: str) -> float:
    """Return the seconds of the fastest of five calls."""
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def show(rows: list[Row]) -> None:
    table = Table("what", "how", "ms per step", "tokens/s", "ratio", "share of peak", "peak MiB")
    formats = {"ms": ".1f", "tokens/s": ",.0f", "ratio": ".2f", "share": ".0%", "MiB": ",.0f"}
    for row in rows:
        cells = [format(row[key], kind) if key in row else "" for key, kind in formats.items()]
        if any(cells):
            table.add_row(row["what"], row["how"], *cells)
    console = Console()
    Console(width=max(console.width, WIDTH)).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(WIKITEXT), help="folder with train.txt, valid.txt and test.txt")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--families", nargs="+", choices=("lstm", "gru", "rnn"), default=["lstm", "gru", "rnn"])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each setup")
    parser.add_argument("--steps", type=int, default=5, help="steps per turn")
    parser.add_argument("--json", type=Path, default=Path("bench_speed.json"), help="output file")
    arguments = parser.parse_args()
    found = ceiling("cpu") | (ceiling("cuda") if torch.cuda.is_available() else {})
    bench = Bench(arguments.data, arguments.rounds, arguments.steps, found, arguments.families)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ", end="")
    print(", ".join(f"{name} {value:,.0f}" for name, value in found.items()))
    for part in arguments.parts:
        getattr(bench, part)()
    show(bench.rows)
    arguments.json.write_text(json.dumps({"ceiling": found, "rows": bench.rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
