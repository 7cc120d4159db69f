"""Weak scaling of training: one process with one thread, compared with several that each do the same work.

    python scripts/bench_scaling.py                             # lstm and transformer, 1 and 2 processes
    python scripts/bench_scaling.py --processes 1 2 4 --families gru --output scaling.json
    python scripts/bench_scaling.py --vocabulary 267735 --families lstm [--dense] [--compression bf16]

Each process has `--batch-size` rows, so the global batch grows with the number of processes. The efficiency is the
tokens per second of W processes divided by W times those of one. The text is generated; the model has the size of a
WikiText-2 run. The processes share the memory and caches of the machine and exchange gradients with gloo.

On Linux two more columns describe the exchange: the megabytes that a process writes to its sockets per update, and the
share of the time that its main thread sleeps. Waiting for a free core does not count as sleeping. `--dense` sends whole
tables, as versions before 0.2 did; with PYTHONPATH set to such a version, the script measures that version.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_linguist.trainer.loop import Loop

WARM_UP = 5


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=["lstm", "transformer"])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch-size", type=int, default=16, help="rows per process")
    parser.add_argument("--sequence-length", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--dense", action="store_true", help="exchange the tables whole")
    parser.add_argument("--compression", choices=["bf16"], help="type in which gradients are exchanged")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3, help="launches of each kind, in turn; the fastest counts")
    parser.add_argument("--output", type=Path, help="gets the numbers as JSON")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        measure(arguments)
        return 0
    results = [
        launched(arguments, family, count)
        for family in arguments.families
        for _ in range(arguments.repeats)
        for count in arguments.processes
    ]
    rows = table(results, arguments.families, arguments.processes)
    if arguments.output:
        facts = {"cores": os.cpu_count(), "arguments": {key: str(value) for key, value in vars(arguments).items()}}
        arguments.output.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    return 0


def launched(arguments: argparse.Namespace, family: str, count: int) -> dict[str, Any]:
    """Tokens a second of one launch of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", __file__]
        for name in ("batch_size", "sequence_length", "vocabulary", "hidden", "steps"):
            line += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
        line += ["--families", family, "--worker", str(found)]
        line += ["--dense"] if arguments.dense else []
        line += ["--compression", arguments.compression] if arguments.compression else []
        subprocess.run(line, check=True, env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
        content: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return {"family": family, "processes": count, **content}


def measure(arguments: argparse.Namespace) -> None:
    """Run the work of one process: a few updates, timed from the warm-up of all processes to the end of all."""
    import torch

    from torch_linguist.distributed import processes
    from torch_linguist.trainer.device import denormals_flushed

    with processes.process_group(), denormals_flushed():
        torch.set_num_threads(1)
        torch.manual_seed(1)
        loop = made_loop(arguments)
        for _ in range(WARM_UP):
            loop.update()
        processes.barrier()
        begin, tokens, sent, busy = time.perf_counter(), loop.state.tokens, bytes_sent(), busy_seconds()
        for _ in range(arguments.steps):
            loop.update()
        busy, sent = busy_seconds() - busy, bytes_sent() - sent
        waiting = 1 - busy / (time.perf_counter() - begin)
        processes.barrier()
        seconds = time.perf_counter() - begin
        if processes.is_main_process():
            found = {
                "parameters": loop.model.num_parameters(),
                "tokens_per_second": (loop.state.tokens - tokens) / seconds,
                "milliseconds_an_update": 1000 * seconds / arguments.steps,
                "megabytes_sent": sent / arguments.steps / 1e6,
                "share_waiting": waiting,
            }
            arguments.worker.write_text(json.dumps(found), encoding="utf-8")


def made_loop(arguments: argparse.Namespace) -> "Loop":
    """Return the loop that is measured, over one batch of tokens of a Zipf distribution."""
    import numpy as np
    import torch

    from torch_linguist.data import Batch
    from torch_linguist.distributed import data_parallel, processes
    from torch_linguist.model import GRU, LSTM, RNN, LanguageModel, Transformer
    from torch_linguist.optim import LazyAdamW
    from torch_linguist.trainer.loop import Loop

    class MadeBatches:
        """Tokens of a Zipf distribution, without end."""

        epoch = 0.0

        def __init__(self, rows: int) -> None:
            source = np.random.default_rng(1)
            ranks = np.minimum(source.zipf(1.2, (rows, arguments.sequence_length + 1)), arguments.vocabulary) - 1
            ids = torch.from_numpy(ranks.astype(np.int64))
            self._batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), reset=False)

        def next(self) -> Batch:
            return self._batch

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None:
            """There is no position."""

    family = arguments.families[0]
    kinds: dict[str, type[LanguageModel]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU, "transformer": Transformer}
    sizes = {"hidden_size": arguments.hidden} if family != "transformer" else {"num_heads": 4}
    model = kinds[family](arguments.vocabulary, embedding_dim=arguments.hidden, **sizes)
    data_parallel.broadcast_weights(model)
    model.use_sparse_gradients(lambda weight: processes.world_size() == 1 or not arguments.dense)
    options: dict[str, Any] = {}
    if arguments.compression:
        options["step"] = data_parallel.DataParallel(model, compression=arguments.compression)
    rows = arguments.batch_size * processes.world_size()
    return Loop(model, LazyAdamW(model.parameters(), lr=1e-3), MadeBatches(rows), **options)


def bytes_sent() -> int:
    """Bytes that this process has written so far; nothing but its sockets counts in a benchmark."""
    table = Path("/proc/self/io")
    if not table.is_file():
        return 0
    return int(dict(line.split(": ") for line in table.read_text(encoding="utf-8").splitlines())["wchar"])


def busy_seconds() -> float:
    """Seconds that this thread has run or waited for a free core so far."""
    table = Path("/proc/thread-self/schedstat")
    if not table.is_file():
        return time.perf_counter()
    return sum(map(int, table.read_text(encoding="utf-8").split()[:2])) / 1e9


def table(results: Sequence[dict[str, Any]], families: Sequence[str], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Print and return the fastest launch of each kind and its scaling efficiency."""
    rows: list[dict[str, Any]] = []
    heads = f"{'processes':>9} {'tokens/s':>9} {'ms/update':>9} {'efficiency':>10} {'MB sent':>8} {'waiting':>7}"
    print(f"{'family':12} {'parameters':>11} {heads}")
    for family in families:
        best = {
            count: max(
                (result for result in results if (result["family"], result["processes"]) == (family, count)),
                key=lambda result: float(result["tokens_per_second"]),
            )
            for count in counts
        }
        first = best[counts[0]]
        for count, row in best.items():
            share = row["tokens_per_second"] / first["tokens_per_second"] * counts[0] / count
            rows.append({**row, "efficiency": share})
            print(
                f"{family:12} {row['parameters']:11,} {count:9} {row['tokens_per_second']:9,.0f} "
                f"{row['milliseconds_an_update']:9.1f} {share:10.0%} {row['megabytes_sent']:8.2f} "
                f"{row['share_waiting']:7.0%}"
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
