"""Benchmark of the n-gram model: time, memory and exactness, compared with the kenlm module on the same ARPA file.

    python scripts/bench_ngram.py  # WikiText-2 in ../shared/data/wikitext-2, growth to 10 M tokens
    python scripts/bench_ngram.py --grow 10 50         # up to 50 M (about 6 GiB)
    python scripts/bench_ngram.py --parts build score  # only some parts

Each timing is the best of several. Builds run in separate processes; their peak memory is reported without that of
Python and torch.
"""

import argparse
import gc
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from torch_linguist.data import TokenizedCorpus, WikiTextCorpus, WordTokenizerTrainer, prepare
from torch_linguist.model.ngram import NGramModel, prune_entropy, read_arpa, write_arpa

WIKITEXT = Path(__file__).resolve().parents[1] / "../shared/data/wikitext-2"
# KenLM on WikiText-2 as one stream, by order: perplexity on valid and test, `lmplz -S 200M` and `query` on 2 cores.
KENLM_PERPLEXITY = {2: (284.74, 263.97), 3: (240.75, 224.40), 4: (233.93, 219.10), 5: (232.51, 217.80)}
KENLM_BUILD_SECONDS, KENLM_BUILD_MIB, KENLM_TOKENS_PER_SECOND = 2.8, 165, 3.0e6
PARTS = ("exact", "build", "score", "next", "prune", "disk", "grow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(WIKITEXT), help="folder with train.txt, valid.txt and test.txt")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--grow", nargs="+", type=int, default=[2, 10], help="millions of generated tokens")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        ids, vocab_size, order, limit = arguments.child
        child(Path(ids), int(vocab_size), int(order), int(limit))
        return
    print(f"torch {torch.__version__}, NumPy {np.__version__}, {torch.get_num_threads()} threads")
    data = prepare(WikiTextCorpus(arguments.data), WordTokenizerTrainer())
    vocab_size = data.tokenizer.vocab_size
    print(f"{len(data.train):,} tokens to count, {len(data.test):,} to score, {vocab_size:,} types\n")
    if "exact" in arguments.parts:
        exact(data)
    if "build" in arguments.parts:
        build(data)
    if {"score", "next", "prune"} & set(arguments.parts):
        model = fitted(data, 5)
        with tempfile.TemporaryDirectory() as folder:
            if {"score", "next"} & set(arguments.parts):
                against_kenlm(data, model, Path(folder) / "model.arpa", arguments.parts)
        if "prune" in arguments.parts:
            prune(data, model)
    if "disk" in arguments.parts:
        disk(data)
    if "grow" in arguments.parts:
        grow(arguments.grow)


def fitted(data: TokenizedCorpus, order: int, **options: Any) -> NGramModel:
    model = NGramModel(data.tokenizer.vocab_size, order, **options)
    model.fit_counts(data.train.ids, data.train.eos_id)
    return model


def nll(model: NGramModel, ids: npt.NDArray[Any], eos_id: int) -> torch.Tensor:
    targets = torch.from_numpy(ids.astype(np.int64))[None]
    tokens = torch.cat([torch.tensor([[eos_id]]), targets[:, :-1]], dim=1)
    with torch.inference_mode():
        return model.nll(tokens, targets, model.initial_state(1))[0][0]


def perplexity(model: NGramModel, data: TokenizedCorpus, split: str) -> float:
    stream = data.streams[split]
    return math.exp(float(nll(model, stream.ids, stream.eos_id).mean()))


def best_seconds(action: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def exact(data: TokenizedCorpus) -> None:
    print("perplexity          valid     KenLM      test     KenLM   n-grams of the highest order")
    for order, (valid, test) in KENLM_PERPLEXITY.items():
        model = fitted(data, order)
        ours = perplexity(model, data, "valid"), perplexity(model, data, "test")
        size = model.ngram_counts()[-1]
        print(f"order {order}         {ours[0]:9.2f} {valid:9.2f} {ours[1]:9.2f} {test:9.2f}   {size:,}")
    print()


def child(path: Path, vocab_size: int, order: int, limit: int) -> None:
    """Build a model in this process; print the best time and the peak memory above the imports, in MiB."""
    ids = np.load(path, mmap_mode="r")
    model = NGramModel(vocab_size, order, memory_limit_mib=limit or None)
    before = peak_mebibytes()
    taken = best_seconds(lambda: model.fit_counts(ids, 0), 1 if len(ids) > 5_000_000 else 3)
    peak = peak_mebibytes()
    print(taken, peak - before, peak, sum(model.ngram_counts()))


def peak_mebibytes() -> float:
    """Return the peak memory of this process; getrusage would count that of its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def build_apart(ids: npt.NDArray[Any], vocab_size: int, order: int = 5, limit: int = 0) -> list[float]:
    """Run `child` in a fresh process; return seconds, MiB above the imports, total MiB and n-grams."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ids.npy"
        np.save(path, ids)
        command = [sys.executable, __file__, "--child", str(path), str(vocab_size), str(order), str(limit)]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(value) for value in result.stdout.split()]


def build(data: TokenizedCorpus) -> None:
    seconds, extra, whole, _ = build_apart(np.asarray(data.train.ids), data.tokenizer.vocab_size)
    print(
        f"build, order 5      {seconds:.2f} s, {extra:,.0f} MiB on top of the imports, {whole:,.0f} MiB in all "
        f"(lmplz: {KENLM_BUILD_SECONDS} s, {KENLM_BUILD_MIB} MiB; {KENLM_BUILD_SECONDS / seconds:.1f} times as fast)\n"
    )


def against_kenlm(data: TokenizedCorpus, model: NGramModel, path: Path, parts: list[str]) -> None:
    import kenlm

    words = data.tokenizer.tokens
    begin = time.perf_counter()
    write_arpa(model, words, path)
    written = time.perf_counter() - begin
    begin = time.perf_counter()
    other = kenlm.Model(str(path))
    loaded = time.perf_counter() - begin
    begin = time.perf_counter()
    restored, _ = read_arpa(path, words)
    read = time.perf_counter() - begin
    size = path.stat().st_size >> 20
    print(f"ARPA, {size} MiB       written in {written:.1f} s, read in {read:.1f} s, by kenlm in {loaded:.1f} s")
    if "score" in parts:
        score(data, model, restored, other)
    if "next" in parts:
        next_words(data, model, other)


def score(data: TokenizedCorpus, model: NGramModel, restored: NGramModel, other: Any) -> None:
    ids, words = np.asarray(data.test.ids), data.tokenizer.tokens
    text = " ".join(words[index] for index in ids)
    ours = nll(model, ids, data.test.eos_id)
    first = f"{words[data.test.eos_id]} {text}"
    theirs = -math.log(10) * np.array([line[0] for line in other.full_scores(first, bos=False, eos=False)][1:])
    apart = float(np.abs(ours.numpy() - theirs).max())
    again = float((nll(restored, ids, data.test.eos_id) - ours).abs().max())
    seconds = best_seconds(lambda: nll(model, ids, data.test.eos_id), 7)
    kenlm_seconds = best_seconds(lambda: other.score(text, bos=False, eos=False), 3)
    print(f"largest difference  {apart:.1e} nats from kenlm, {again:.1e} from the file read again")
    print(
        f"scoring             {len(ids) / seconds / 1e6:.2f} M tokens/s (kenlm from Python "
        f"{len(ids) / kenlm_seconds / 1e6:.2f}, its query program {KENLM_TOKENS_PER_SECOND / 1e6:.1f}; "
        f"{kenlm_seconds / seconds:.1f} and {len(ids) / seconds / KENLM_TOKENS_PER_SECOND:.1f} times as fast)"
    )


def next_words(data: TokenizedCorpus, model: NGramModel, other: Any) -> None:
    import kenlm

    ids, words = np.asarray(data.test.ids[:400]).astype(np.int64), data.tokenizer.tokens
    state = model.initial_state(1)
    taken = []
    with torch.inference_mode():
        for index in ids:
            begin = time.perf_counter()
            logits, state = model(torch.tensor([[index]]), state)
            taken.append(time.perf_counter() - begin)
    before, after = kenlm.State(), kenlm.State()
    other.NullContextWrite(before)
    for index in ids[-5:]:
        other.BaseScore(before, words[index], after)
        before, after = after, before
    seconds = best_seconds(lambda: [other.BaseScore(before, word, after) for word in words], 5)
    theirs = torch.tensor([other.BaseScore(before, word, after) for word in words], dtype=torch.float64) * math.log(10)
    print(
        f"next words          {np.median(taken) * 1e3:.2f} ms (at most {max(taken[5:]) * 1e3:.2f}) for {len(words):,} "
        f"words (kenlm from Python {seconds * 1e3:.1f} ms; {seconds / np.median(taken):.0f} times as fast), "
        f"{float((logits[0, 0] - theirs).abs().max()):.1e} nats apart, sum {float(logits.exp().sum()):.12f}\n"
    )


def prune(data: TokenizedCorpus, model: NGramModel) -> None:
    print("cut                        n-grams    share   test perplexity")
    whole = sum(model.ngram_counts())

    def line(name: str, smaller: NGramModel) -> None:
        size = sum(smaller.ngram_counts())
        print(f"{name:24} {size:9,} {size / whole:8.1%} {perplexity(smaller, data, 'test'):17.2f}")

    line("none", model)
    for least in (2, 3):
        line(f"min_count=[1,1,{least}]", fitted(data, 5, min_count=[1, 1, least]))
    estimated = model.backoff_model()
    for threshold in (1e-9, 1e-8, 1e-7, 1e-6):
        smaller = NGramModel(data.tokenizer.vocab_size, 5)
        smaller.assign(prune_entropy(estimated, threshold))
        line(f"entropy_threshold={threshold:g}", smaller)
    print()


def disk(data: TokenizedCorpus) -> None:
    for limit in (16, 64):
        seconds, *_ = build_apart(np.asarray(data.train.ids), data.tokenizer.vocab_size, limit=limit)
        print(f"memory_limit_mib={limit}   {seconds:.2f} s to build order 5")
    print()


def made_text(tokens: int, vocab_size: int) -> npt.NDArray[np.uint16]:
    """Return words by Zipf's law, half of them in repeated phrases, so that long n-grams recur as in real text."""
    generator = np.random.default_rng(0)
    ranks: npt.NDArray[np.uint16]
    ranks = np.exp(generator.random(tokens, dtype=np.float32) * np.log(vocab_size)).astype(np.uint16) - np.uint16(1)
    lengths = generator.integers(3, 12, tokens // 7)
    ends = np.cumsum(lengths)
    ends = ends[ends < tokens]
    for first, size in phrases(ends, generator):
        ranks[first[1] : first[1] + size] = ranks[first[0] : first[0] + size]
    return ranks


def phrases(ends: npt.NDArray[np.int64], generator: np.random.Generator) -> Iterator[tuple[tuple[int, int], int]]:
    """Return the repeated phrases: start of the earlier one, start of the new one, and length."""
    for place in range(1, len(ends) - 1, 2):
        begin, size = int(ends[place]), int(ends[place + 1] - ends[place])
        yield (int(begin * generator.random() ** 2), begin), size


def grow(millions: list[int]) -> None:
    print("made text, order 5, 50,000 types")
    for count in millions:
        ids = made_text(count * 1_000_000, 50_000)
        seconds, extra, _, size = build_apart(ids, 50_000)
        print(
            f"{count:4d} M tokens       {seconds:6.1f} s, {seconds / count:.2f} s a million, {extra:6,.0f} MiB, "
            f"{extra * 2**20 / count / 1e6:.0f} bytes a token, {size / 1e6:.1f} M n-grams"
        )
        del ids
        gc.collect()


if __name__ == "__main__":
    main()
