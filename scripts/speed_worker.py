"""Time the steps of one setup in a separate process; `bench_speed.py` starts it and requests the steps.

The reference does what PyTorch's word language model example does: embedding, `nn.LSTM` (or `nn.TransformerEncoder`), a
linear layer, log-softmax and NLL over the full vocabulary in float32, in an ordinary process. Our model runs as in the
commands of this project, with their environment variables, which must be set before torch is imported.
"""

import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speed_setup import StepSetup

from torch_linguist.cli import entry

TUNED = {"GOMP_SPINCOUNT": entry.GOMP_SPINCOUNT, "THP_MEM_ALLOC_ENABLE": entry.HUGE_PAGES}
"""Environment variables that the commands set before torch is imported."""


def resident_mib(which: str) -> float:
    """Return the resident memory of this process in MiB: the current value (VmRSS) or its peak (VmHWM). Linux only."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{which}:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def serve(setup: StepSetup, data: str) -> None:
    """Answer each line on standard input (`steps N`, `score N PRECISION`, `memory`) with a line of JSON."""
    import torch._dynamo  # noqa: F401  (imported by every optimizer; not part of the measured memory)
    from speed_models import Timed, load_corpus

    corpus = load_corpus(data)
    before = resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # Reset the peak.
    timed = Timed(setup, corpus)
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
    """Handle of the benchmark for the process of a setup."""

    def __init__(self, setup: StepSetup, data: str) -> None:
        import subprocess

        self.setup = setup
        environment = {key: value for key, value in os.environ.items() if key not in TUNED}
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(asdict(setup)), data],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | (TUNED if setup.tuned else {}),
        )
        self.vocab_size = int(self._answer()["vocab_size"])

    def steps(self, count: int) -> list[float]:
        """Return the seconds of each of `count` further training steps."""
        seconds: list[float] = self._ask(f"steps {count}")
        return seconds

    def score(self, tokens: int, precision: str) -> dict[str, float]:
        """Return tokens per second and loss of scoring the first tokens of the validation split."""
        found: dict[str, float] = self._ask(f"score {tokens} {precision}")
        return found

    def memory(self) -> dict[str, float]:
        """Return peak memory in MiB: `above` the start, the total `peak`, and that of the `device`."""
        found: dict[str, float] = self._ask("memory")
        return found

    def close(self) -> None:
        """End the process."""
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
            raise RuntimeError(f"{self.setup.name}: the process ended with {self._process.wait()}")
        return json.loads(line)


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    serve(StepSetup(**fields | {"batch": tuple(fields["batch"])}), sys.argv[2])
