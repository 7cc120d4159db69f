"""Load on `tl-serve`: throughput, latency, memory, and whether every answer equals that of the same request alone.

    python scripts/bench_serve.py RUN [RUN ...] --minutes 3 --clients 16

For each run: a plain loop (`continue_prompt`, one request after the other), one client that sends each request alone,
and all clients at once to a fresh server. The answers under load are compared with those of the single client.
"""

import argparse
import http.client
import json
import random
import re
import signal
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
    """Measurements of a phase."""

    tokens: int
    seconds: float
    latencies: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0, help="time under load per run")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=200, help="different requests")
    parser.add_argument("--seconds", type=float, default=30.0, help="time of the plain loop")
    arguments = parser.parse_args()
    print("| model | way | completions | tokens/s | p50 s | p95 s | memory MiB, begin and end |")
    print("|---|---|---|---|---|---|---|")
    for folder in arguments.runs:
        bench(folder, arguments)


def bench(folder: Path, arguments: argparse.Namespace) -> None:
    bodies = make_requests(folder, arguments.requests, seed=1)
    show(folder.name, "plain loop", plain_loop(folder, bodies, arguments.seconds))
    process, port = start_server(folder)
    alone: dict[int, Any] = {}
    show(folder.name, "tl-serve, 1 client", load(port, bodies, 1, float("inf"), len(bodies), alone))
    stop_server(process)
    process, port = start_server(folder)
    under_load: dict[int, Any] = {}
    memory = Path(f"/proc/{process.pid}/status")
    watched: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(2):
            (kibibytes,) = re.findall(r"VmRSS:\s+(\d+) kB", memory.read_text(encoding="utf-8"))
            watched.append(int(kibibytes) / 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    measured = load(port, bodies, arguments.clients, 60 * arguments.minutes, 10**9, under_load)
    ended.set()
    watcher.join()
    # The first tenth fills the cache of prefixes.
    begin, end = watched[len(watched) // 10], watched[-1]
    show(folder.name, f"tl-serve, {arguments.clients} clients", measured, f"{begin:.0f}, {end:.0f}")
    stop_server(process)
    wrong = sum(under_load[index] != alone[index] for index in under_load)
    print(f"\n{folder.name}: {len(under_load)} different requests, {wrong} answers differ from the one alone\n")


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
    return Measured(tokens, time.perf_counter() - begin, latencies)


def load(
    port: int, bodies: list[dict[str, Any]], clients: int, seconds: float, most: int, answers: dict[int, Any]
) -> Measured:
    """Send requests for a time; an answer that differs from an earlier one to the same request is an error."""
    begin, tokens, latencies = time.perf_counter(), [0], list[float]()
    numbers = iter(range(most))

    def work() -> None:
        while time.perf_counter() - begin < seconds:
            number = next(numbers, None)
            if number is None:
                break
            index = number % len(bodies)
            before = time.perf_counter()
            answer = ask(port, bodies[index])
            latencies.append(time.perf_counter() - before)
            tokens[0] += answer["usage"]["completion_tokens"]
            if answers.setdefault(index, answer) != answer:
                raise SystemExit(f"two answers to request {index}: {answers[index]} and {answer}")

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Measured(tokens[0], time.perf_counter() - begin, latencies)


def ask(port: int, body: dict[str, Any]) -> dict[str, Any]:
    """Return choices and usage of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    if response.status != 200:
        raise SystemExit(f"status {response.status}: {content}")
    return {"choices": content["choices"], "usage": content["usage"]}


def start_server(folder: Path) -> tuple["subprocess.Popen[str]", int]:
    line = [sys.executable, "-m", "torch_linguist.cli.serve", str(folder), "--port", "0"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r":(\d+)/", process.stdout.readline())
    assert found is not None
    return process, int(found[1])


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
