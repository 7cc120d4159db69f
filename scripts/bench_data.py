"""Tokenization speed compared with the `tokenizers` library, and memory, on a generated text file.

Usage: python scripts/bench_data.py [--megabytes 100] [--tokenizers word bpe] [--folder FOLDER]
    [--line-megabytes 100]
"""

import argparse
import contextlib
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from torch_linguist.data import (
    BPETokenizerTrainer,
    ByteTokenizerTrainer,
    CharTokenizerTrainer,
    ContiguousBatches,
    SotuCorpus,
    TextCorpus,
    TokenizedCorpus,
    Tokenizer,
    TokenizerTrainer,
    UnigramTokenizerTrainer,
    WordTokenizerTrainer,
    prepare,
)
from torch_linguist.model import LSTM, detach_state

TRAINERS: dict[str, TokenizerTrainer] = {
    "word": WordTokenizerTrainer(min_frequency=1, split="whitespace"),
    "bpe": BPETokenizerTrainer(),
    "unigram": UnigramTokenizerTrainer(),
    "char": CharTokenizerTrainer(),
    "byte": ByteTokenizerTrainer(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100, help="MiB of text; at 2000 the memory stays bounded")
    parser.add_argument("--tokenizers", nargs="+", choices=list(TRAINERS), default=["word", "bpe"])
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder for text and cache")
    parser.add_argument("--line-megabytes", type=float, default=0.0, help="length of each line; 0 for sentences")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        path = make_text(folder / "text.txt", arguments.megabytes * 2**20, arguments.line_megabytes)
        print(f"{path.stat().st_size / 2**20:,.0f} MiB of text; at rest {resident():,.0f} MiB of memory")
        for kind in arguments.tokenizers:
            measure(kind, path, folder / kind)
            shutil.rmtree(folder / kind)


def make_text(path: Path, size: int, line_megabytes: float) -> Path:
    """Write sentences of the addresses in random order, with generated words of a long tail among them."""
    words = " ".join(document.text for document in SotuCorpus().documents("train")).split()
    generator = np.random.default_rng(1)
    written, pending = 0, 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            begin = int(generator.integers(len(words) - 5000))
            block = words[begin : begin + 5000]
            for position in generator.integers(0, 5000, 50):
                block[position] = f"w{int(generator.pareto(0.6) * 100) % 500_000}"
            ends = " " if line_megabytes and pending < line_megabytes * 2**20 else "\n"
            pending = 0 if ends == "\n" else pending
            sentences = [" ".join(block[start : start + 25]) for start in range(0, 5000, 25)]
            text = (" " if line_megabytes else "\n").join(sentences)
            written += file.write(text + ends)
            pending += len(text)
    return path


def measure(kind: str, path: Path, folder: Path) -> None:
    """Measure building the cache, opening it, the library alone on the same text, and batches."""
    corpus, trainer = TextCorpus(str(path), tokenized=True), TRAINERS[kind]
    before = resident()
    with peak() as highest:
        begin = time.perf_counter()
        tokenizer = trainer.train(corpus)
        trained = time.perf_counter() - begin
        begin = time.perf_counter()
        corpora = prepare(corpus, None, folder, tokenizer=tokenizer)
        encoded = time.perf_counter() - begin
    tokens = sum(len(stream) for stream in corpora.streams.values())
    begin = time.perf_counter()
    prepare(corpus, None, folder, tokenizer=tokenizer)
    second = time.perf_counter() - begin
    own, bare, fast = (speed(tokenizer, path, which) for which in ("own", "encode_batch", "encode_batch_fast"))
    print(
        f"{kind}: {tokens:,} tokens, {tokenizer.vocab_size:,} types, {corpora.train.ids.dtype}; "
        f"training {trained:.1f} s, text to cache {encoded:.1f} s ({tokens / encoded:,.0f} tokens/s), "
        f"second start {second * 1000:.0f} ms"
    )
    print(f"  memory: {highest[0] - before:,.0f} MiB above the {before:,.0f} MiB before")
    print(
        f"  a sample of 20 MB: own {own:,.0f} tokens/s, encode_batch {bare:,.0f} ({own / bare:.0%}), "
        f"encode_batch_fast {fast:,.0f} ({own / fast:.0%})"
    )
    batch, step = step_times(corpora)
    print(f"  a batch of 32 x 64: {batch * 1e6:.0f} µs, {batch / step:.2%} of a training step of {step * 1e3:.0f} ms")


def step_times(corpora: TokenizedCorpus, steps: int = 10) -> tuple[float, float]:
    """Return the seconds of a batch, and of a training step of a small LSTM (batch, forward, backward, update)."""
    model = LSTM(corpora.tokenizer.vocab_size)
    model.prepare_vocabulary(torch.from_numpy(corpora.token_counts()))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batches, state = ContiguousBatches(corpora.train, 32, 64), model.initial_state(32)
    waiting, begin = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = batches.next()
        waiting += time.perf_counter() - asked
        nll, state = model.nll(batch.tokens, batch.targets, detach_state(state))
        torch.autograd.backward(nll.mean())
        optimizer.step()
        optimizer.zero_grad()
    return waiting / steps, (time.perf_counter() - begin) / steps


def speed(tokenizer: Tokenizer, path: Path, which: str) -> float:
    """Return tokens per second over the first 20 MB of text in memory: to files (own), or to the library's objects."""
    with path.open(encoding="utf-8") as file:
        lines = file.read(20 * 2**20).split("\n")
    batches = [lines[start : start + 8192] for start in range(0, len(lines), 8192)]
    if which == "own":
        return own_speed(tokenizer, lines)
    backend = tokenizer._backend  # The library itself is what is measured.
    encode = getattr(backend, which)
    tokens = 0
    begin = time.perf_counter()
    for batch in batches:
        tokens += sum(len(encoding) for encoding in encode(batch, add_special_tokens=False))
    return tokens / (time.perf_counter() - begin)


def own_speed(tokenizer: Tokenizer, lines: list[str]) -> float:
    """Encode the same lines with the encoder of the cache, to files."""
    from concurrent.futures import ThreadPoolExecutor

    from torch_linguist.data import Document
    from torch_linguist.data.encoding import WORKERS, SplitEncoder

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        begin = time.perf_counter()
        with SplitEncoder(Path(folder), "train", tokenizer, "keep", "uint32", pool) as encoder:
            for start in range(0, len(lines), 8192):
                encoder.add(Document("\n".join(lines[start : start + 8192])))
            encoder.finish()
        return encoder.tokens / (time.perf_counter() - begin)


@contextlib.contextmanager
def peak() -> Iterator[list[float]]:
    """Measure the highest resident memory during the block in MiB, a hundred times a second."""
    highest, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            highest[0] = max(highest[0], resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield highest
    finally:
        done.set()
        watcher.join()


def resident() -> float:
    """Return the resident memory of this process in MiB (its peak on systems without /proc)."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text(encoding="utf-8").split()[1]) * resource.getpagesize() / 2**20
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


if __name__ == "__main__":
    main()
