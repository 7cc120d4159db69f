"""One way to do a training step, in a process of its own; `bench_speed.py` starts it and says how many steps to do.

The reference does what the well-known example script does: embedding, `nn.LSTM` (or `nn.TransformerEncoder`), a linear
layer, log-softmax and NLL over the whole vocabulary, in float32, in a plain process. Ours runs as the commands of this
project run: with their environment, which must be in place before torch is imported.

Shape legend: B batch, T time, V vocabulary.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch_linguist.cli import entry

TUNED = {"GOMP_SPINCOUNT": entry.GOMP_SPINCOUNT, "THP_MEM_ALLOC_ENABLE": entry.HUGE_PAGES}
"""What the commands set before torch is imported."""

Step = Callable[[], Any]


@dataclass(frozen=True)
class Way:
    """What is trained, and how.

    Attributes:
        name: shown in the table.
        stock: the reference instead of ours.
        tuned: whether the process gets the environment of the commands.
        family: `lstm`, `gru`, `rnn` or `transformer`.
        size: width of embedding and hidden vectors.
        layers: number of layers.
        batch: B and T.
        output: `full`, `adaptive` or `sampled`.
        precision: `fp32` or `bf16`.
        dropout: of recurrent models.
        optimizer: `sgd` or `adamw`.
        heads: of the Transformer.
        device: `cpu` or `cuda`.
    """

    name: str
    stock: bool = False
    tuned: bool = True
    family: str = "lstm"
    size: int = 200
    layers: int = 1
    batch: tuple[int, int] = (20, 35)
    output: str = "full"
    precision: str = "fp32"
    dropout: float = 0.0
    optimizer: str = "sgd"
    heads: int = 4
    device: str = "cpu"

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.batch[0] * self.batch[1]

    def weights(self, vocab_size: int) -> int:
        """Weights in the matrix products of a token, where the whole vocabulary is in the step.

        Attention's own products are left out: windows of 64 make them a hundredth.
        """
        gates = {"lstm": 4, "gru": 3, "rnn": 1}
        inner = gates[self.family] * 2 if self.family in gates else 12
        return inner * self.size**2 * self.layers + self.size * vocab_size


def resident_mib(which: str) -> float:
    """Resident memory of this process in MiB: now (VmRSS), or its peak (VmHWM). Linux alone tells."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{which}:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def serve(way: Way, data: str) -> None:
    """Answers each line on standard input (`steps N`, `score N PRECISION`, `memory`) with a line of JSON."""
    import torch._dynamo  # noqa: F401  (each of torch's optimizers imports it: no part of what a way takes)
    from speed_models import Timed, load_corpus

    corpus = load_corpus(data)
    before = resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Forgets the peak of what came before.
    timed = Timed(way, corpus)
    print(json.dumps({"vocab_size": corpus.tokenizer.vocab_size}), flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        answer: Any
        if command == "steps":
            answer = timed.steps(int(arguments[0]))
        elif command == "score":
            answer = timed.score(int(arguments[0]), arguments[1])
        else:
            peak = resident_mib("VmHWM")
            answer = {"above": peak - before, "peak": peak, "device": timed.device_peak_mib()}
        print(json.dumps(answer), flush=True)


class Worker:
    """The process of a way, as the one that asks sees it."""

    def __init__(self, way: Way, data: str) -> None:
        import subprocess

        self.way = way
        environment = {key: value for key, value in os.environ.items() if key not in TUNED}
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(asdict(way)), data],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | (TUNED if way.tuned else {}),
        )
        self.vocab_size = int(self._answer()["vocab_size"])

    def steps(self, count: int) -> list[float]:
        """Seconds of each of so many further training steps."""
        seconds: list[float] = self._ask(f"steps {count}")
        return seconds

    def score(self, tokens: int, precision: str) -> dict[str, float]:
        """Tokens a second and loss of scoring the first tokens of the validation split."""
        found: dict[str, float] = self._ask(f"score {tokens} {precision}")
        return found

    def memory(self) -> dict[str, float]:
        """Peak of the resident memory in MiB: `above` what was there before the model, all of it, and the device's."""
        found: dict[str, float] = self._ask("memory")
        return found

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.way.name}: the process ended with {self._process.wait()}")
        return json.loads(line)


def time_of(step: Step, wait: Callable[[], None]) -> float:
    """Seconds of a step, up to the end of what it started on the device."""
    begin = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - begin


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    serve(Way(**fields | {"batch": tuple(fields["batch"])}), sys.argv[2])
