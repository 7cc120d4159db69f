"""Training speed of a small character Transformer, in turns with the same size of nanoGPT.

    git clone https://github.com/karpathy/nanoGPT
    python scripts/bench_nanogpt.py --peer nanoGPT --data input.txt    # input.txt: tiny Shakespeare

Both train 4 layers of 128 with 4 heads on batches of 12 windows of 64 characters, with the settings of nanoGPT's README
for a CPU (`--device=cpu --compile=False --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128
--dropout=0.0`). nanoGPT runs its own `model.py` in the loop of its `train.py`. Ours is a whole training with all its
callbacks, but without validations, in the environment that the commands set (huge pages, threads that do not spin);
nanoGPT runs in an ordinary process, and once more in ours. The processes take turns, so that a busy machine slows all.
The ratio is that of the CPU time; with more than one thread, that includes waiting threads. `--compile` adds compiled
trainings with each activation; all models have about as many parameters.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speed_worker import TUNED

LAYERS, HEADS, WIDTH, ROWS, LENGTH = 4, 4, 128, 12, 64
TOKENS = ROWS * LENGTH
LEARNING_RATE, WEIGHT_DECAY, BETAS = 1e-3, 0.1, (0.9, 0.99)


def turns() -> Iterator[int]:
    """Yield the numbers of updates that the benchmark asks for; print the CPU and wall-clock seconds of each."""
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        before = time.process_time(), time.perf_counter()
        yield int(line)
        print(json.dumps([time.process_time() - before[0], time.perf_counter() - before[1]]), flush=True)


def train_peer(peer: str, data: str) -> None:
    """Train nanoGPT's model as its `train.py` does, without its files."""
    sys.path.insert(0, peer)
    import numpy as np
    import torch

    gpt: Any = __import__("model")
    text = Path(data).read_text(encoding="utf-8")
    ids = {character: number for number, character in enumerate(sorted(set(text)))}
    stream = np.array([ids[character] for character in text[: int(0.9 * len(text))]], dtype=np.uint16)
    torch.manual_seed(1337)
    sizes = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "block_size": LENGTH}
    model = gpt.GPT(gpt.GPTConfig(vocab_size=len(ids), dropout=0.0, bias=False, **sizes))
    optimizer = model.configure_optimizers(WEIGHT_DECAY, LEARNING_RATE, BETAS, "cpu")

    def batch() -> list[torch.Tensor]:
        starts = torch.randint(len(stream) - LENGTH, (ROWS,)).tolist()
        return [
            torch.stack([torch.from_numpy(stream[at + shift :][:LENGTH].astype(np.int64)) for at in starts])
            for shift in (0, 1)
        ]

    for count in turns():
        for _ in range(count):
            _, loss = model(*batch())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()


def train_ours(data: str, options: dict[str, Any]) -> None:
    """Train our model; each turn is a number of updates of one training."""
    from torch_linguist import TextCorpus, Transformer, prepare, train
    from torch_linguist.data import CharTokenizerTrainer
    from torch_linguist.optim import LazyAdamW
    from torch_linguist.trainer.callback import Callback

    corpus = prepare(TextCorpus(data), CharTokenizerTrainer())
    activation = options.pop("activation", "swiglu")
    sizes: dict[str, Any] = {"activation": activation, "dropout": 0.0, "context_length": LENGTH}
    model = Transformer(corpus.tokenizer.vocab_size, WIDTH, LAYERS, HEADS, **sizes)

    class Turns(Callback):
        def __init__(self) -> None:
            self.turns, self.left = turns(), 0

        def before_update(self, training: Any) -> None:
            if not self.left:
                self.left = next(self.turns, 0)
                if not self.left:
                    sys.exit(0)
            self.left -= 1

        def noted(self, message: str) -> None:
            print(message, file=sys.stderr)

    settings: dict[str, Any] = {
        "batch_size": ROWS,
        "sequence_length": LENGTH,
        "device": "cpu",
        "eval_every": 10**9,
        "max_steps": 10**6,
    }
    settings |= {"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY} | options
    train(model, corpus, make_optimizer=LazyAdamW, callbacks=[Turns()], **settings)


def bench(arguments: argparse.Namespace) -> None:
    """Time all workers in turns and print a line for each."""
    trainings: dict[str, dict[str, Any]] = {"ours": {}, "ours, fp32": {"precision": "fp32"}}
    if arguments.compile:
        trainings |= {
            f"ours, compiled, {activation}": {"compile": True, "activation": activation}
            for activation in ("swiglu", "gelu", "squared_relu")
        }
    plain = {key: value for key, value in os.environ.items() if key not in TUNED}
    kinds = {"nanoGPT": ("peer", plain), "nanoGPT, our environment": ("peer", plain | TUNED)}
    kinds |= {name: (json.dumps(options), plain | TUNED) for name, options in trainings.items()}
    common = [sys.executable, __file__, "--peer", arguments.peer, "--data", arguments.data]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = {
        name: subprocess.Popen([*common, "--worker", kind], env=environment, **pipes)
        for name, (kind, environment) in kinds.items()
    }

    def asked(name: str, count: int) -> tuple[float, float]:
        stdin, stdout = workers[name].stdin, workers[name].stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{count}\n")
        stdin.flush()
        cpu, wall = json.loads(stdout.readline())
        return cpu / count, wall / count

    for name, worker in workers.items():
        assert worker.stdout is not None
        while worker.stdout.readline() != '"ready"\n':  # nanoGPT prints its sizes first.
            pass
        asked(name, 5)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
    for _ in range(arguments.rounds):
        for name in workers:
            seconds[name].append(asked(name, arguments.steps))
    for name, taken in seconds.items():
        cpu, wall = (statistics.median(kind) for kind in zip(*taken, strict=True))
        pairs = zip(seconds["nanoGPT"], taken, strict=True)
        ratio = statistics.median(reference[0] / own[0] for reference, own in pairs)
        print(f"{name:28} ratio {ratio:.2f}, {cpu * 1e3:6.1f} ms CPU a step, {TOKENS / wall:8,.0f} tokens/s (clock)")
        workers[name].communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="folder with nanoGPT's model.py")
    parser.add_argument("--data", required=True, help="text file, such as tiny Shakespeare")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--steps", type=int, default=20, help="updates per turn")
    parser.add_argument("--compile", action="store_true", help="also time trainer.compile=true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is None:
        bench(arguments)
    elif arguments.worker == "peer":
        train_peer(arguments.peer, arguments.data)
    else:
        train_ours(arguments.data, json.loads(arguments.worker))


if __name__ == "__main__":
    main()
