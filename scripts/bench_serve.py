"""Load on `tl-serve`: throughput, latency, memory, and whether every answer equals that of the same request alone.

    python scripts/bench_serve.py RUN [RUN ...] --minutes 10 --clients 16
    python scripts/bench_serve.py gpt --minutes 10 --transformers FOLDER

For each run: a plain loop (`continue_prompt`, one request after the other), one client that sends each request alone,
and all clients at once to a fresh server. Each answer under load is compared with that of the single client.
`--transformers` gives the same load to `transformers serve` with a model that `tl-export --hf` wrote; its answers are
only counted, because it draws with one generator for all requests. It needs `pip install "transformers[serving]"`.
"""

import argparse
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from torch_linguist.checkpoint import load_run
from torch_linguist.data import prepare
from torch_linguist.data.corpora.sotu import SotuCorpus
from torch_linguist.generation import Sampling, continue_prompt

SHARED_WORDS = 200
"""Words of the prefix that a third of the prompts share."""


class Measured(NamedTuple):
    """Measurements of a phase; `faults` are the answers that are missing or not the expected ones."""

    tokens: int
    seconds: float
    latencies: list[float]
    faults: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0, help="time under load per run")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=200, help="different requests")
    parser.add_argument("--seconds", type=float, default=30.0, help="time of the plain loop")
    parser.add_argument("--transformers", type=Path, metavar="FOLDER", help="exported model for `transformers serve`")
    arguments = parser.parse_args()
    print("| model | way | completions | tokens/s | p50 s | p95 s | memory MiB: begin, most, end |")
    print("|---|---|---|---|---|---|---|")
    faults = []
    for folder in arguments.runs:
        bodies = make_requests(folder, arguments.requests, seed=1)
        show(folder.name, "plain loop", plain_loop(folder, bodies, arguments.seconds))
        faults += bench_own(folder, bodies, arguments)
        if arguments.transformers:
            line = ["transformers.cli.transformers", "serve", str(arguments.transformers), "--device", "cpu"]
            process, port = start_server([*line, "--port", str(free_port())])
            measured, memory = load_watched(process, port, bodies, arguments, None)
            show(folder.name, f"transformers serve, {arguments.clients} clients", measured, memory)
            stop_server(process)
            faults += measured.faults
    print(f"\n{len(faults)} faults", *faults[:5], sep="\n")
    sys.exit(bool(faults))


def bench_own(folder: Path, bodies: list[dict[str, Any]], arguments: argparse.Namespace) -> list[str]:
    """Measure one client, then many, and return what went wrong."""
    line = ["torch_linguist.cli.serve", str(folder), "--port", "0"]
    process, port = start_server(line)
    alone: dict[int, Any] = {}
    single = load(port, bodies, 1, float("inf"), len(bodies), alone)
    show(folder.name, "tl-serve, 1 client", single)
    stop_server(process)
    process, port = start_server(line)
    measured, memory = load_watched(process, port, bodies, arguments, alone)
    show(folder.name, f"tl-serve, {arguments.clients} clients", measured, memory)
    stop_server(process)
    return [*single.faults, *measured.faults]


def load_watched(
    process: "subprocess.Popen[str]",
    port: int,
    bodies: list[dict[str, Any]],
    arguments: argparse.Namespace,
    expected: dict[int, Any] | None,
) -> tuple[Measured, str]:
    """Send requests from all clients while watching the memory of the server."""
    memory = Path(f"/proc/{process.pid}/status")
    watched: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(1):
            (kibibytes,) = re.findall(r"VmRSS:\s+(\d+) kB", memory.read_text(encoding="utf-8"))
            watched.append(int(kibibytes) / 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    measured = load(port, bodies, arguments.clients, 60 * arguments.minutes, 10**9, expected)
    ended.set()
    watcher.join()
    # The first tenth fills the cache of prefixes.
    return measured, f"{watched[len(watched) // 10]:.0f}, {max(watched):.0f}, {watched[-1]:.0f}"


def make_requests(folder: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Requests of mixed lengths over the text of the validation split."""
    source = random.Random(seed)
    corpus = prepare(SotuCorpus(), None, tokenizer=load_run(folder).tokenizer)
    words = corpus.tokenizer.decode(corpus.streams["valid"].ids[:20_000].tolist()).split(" ")
    bodies = []
    for index in range(count):
        begin = source.randrange(len(words) - 400)
        length = source.choice([1, 5, 20, 60, 150])
        prompt = words[begin : begin + length]
        if index % 3 == 0:
            prompt = words[:SHARED_WORDS] + prompt
        body: dict[str, Any] = {"prompt": " ".join(prompt), "max_tokens": source.choice([8, 16, 32, 64, 128])}
        body |= {"seed": index, "temperature": source.choice([0.0, 0.7, 1.0]), "top_p": source.choice([1.0, 1.0, 0.9])}
        bodies.append(body)
    return bodies


def plain_loop(folder: Path, bodies: list[dict[str, Any]], seconds: float) -> Measured:
    torch.set_num_threads(1)
    run = load_run(folder)
    tokens, latencies, begin = 0, [], time.perf_counter()
    for body in bodies:
        before = time.perf_counter()
        greedy = not body["temperature"]
        sampling = Sampling(body["temperature"] or 1.0, top_p=body["top_p"], greedy=greedy)
        (found,) = continue_prompt(
            run.model, run.tokenizer, body["prompt"], sampling, max_tokens=body["max_tokens"], seed=body["seed"]
        )
        tokens += len(found.ids)
        latencies.append(time.perf_counter() - before)
        if time.perf_counter() - begin > seconds:
            break
    return Measured(tokens, time.perf_counter() - begin, latencies, [])


def load(
    port: int,
    bodies: list[dict[str, Any]],
    clients: int,
    seconds: float,
    most: int,
    expected: dict[int, Any] | None,
) -> Measured:
    """Send requests for a time.

    Args:
        port: port of the server.
        bodies: requests, sent in turn.
        clients: clients that send at the same time.
        seconds: time after which no request is sent.
        most: largest number of requests.
        expected: answer to each request, completed with the first ones; None compares nothing.
    """
    begin, tokens, latencies, faults = time.perf_counter(), [0], list[float](), list[str]()
    numbers = iter(range(most))

    def work() -> None:
        while time.perf_counter() - begin < seconds and (number := next(numbers, None)) is not None:
            index = number % len(bodies)
            before = time.perf_counter()
            try:
                answer = ask(port, bodies[index])
            except (OSError, ValueError, http.client.HTTPException) as error:
                faults.append(f"request {index}: {error!r}")
                continue
            latencies.append(time.perf_counter() - before)
            tokens[0] += answer["usage"]["completion_tokens"]
            if expected is not None and expected.setdefault(index, answer) != answer:
                faults.append(f"request {index}: {answer}, alone {expected[index]}")

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Measured(tokens[0], time.perf_counter() - begin, latencies, faults)


def ask(port: int, body: dict[str, Any]) -> dict[str, Any]:
    """Return choices and usage of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    if response.status != 200:
        raise ValueError(f"status {response.status}: {content}")
    return {"choices": content["choices"], "usage": content["usage"]}


def start_server(line: list[str]) -> tuple["subprocess.Popen[str]", int]:
    """Start a module as a server and return it with its port once it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", *line], stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    port = int(line[line.index("--port") + 1])
    if port == 0:
        assert process.stdout is not None
        found = re.search(r":(\d+)/", process.stdout.readline())
        assert found is not None
        return process, int(found[1])
    while process.poll() is None:
        try:
            ask(port, {"prompt": "a", "max_tokens": 1})
        except (OSError, ValueError):
            time.sleep(0.5)
        else:
            break
    return process, port


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop_server(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def show(model: str, way: str, measured: Measured, memory: str = "") -> None:
    ranked = sorted(measured.latencies)
    p50, p95 = ranked[len(ranked) // 2], ranked[int(len(ranked) * 0.95)]
    speed = measured.tokens / measured.seconds
    print(f"| {model} | {way} | {len(ranked)} | {speed:.0f} | {p50:.2f} | {p95:.2f} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
