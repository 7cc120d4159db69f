"""Benchmark of large n-gram models: built on disk and quantized, beside KenLM's `lmplz` and `build_binary`.

    python scripts/bench_ngram_scale.py --kenlm ~/kenlm/build/bin                # 10 M tokens of made text
    python scripts/bench_ngram_scale.py --kenlm ~/kenlm/build/bin --millions 50 --memory 2048

Order 5, 50,000 types; without --kenlm, ours alone. Both programs start from a file, have the same memory limit and run
in turns, each command in a process of its own. Ratios are those of processor time. Peak memory includes interpreter and
libraries. KenLM's programs are built from source (`make lmplz build_binary`), its Python module by pip (`kenlm`).
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from bench_ngram import made_text, nll, peak_mebibytes

from torch_linguist.checkpoint import load_model, save_checkpoint
from torch_linguist.model.ngram import NGramModel, read_arpa, write_arpa

VOCABULARY = 50_000
ORDER = 5
HELD_OUT = 200_000
SPEED_ROUNDS = 5
KINDS = {"exact": None, "8-bit": 8}
PROGRAMS = (*KINDS, "lmplz", "lmplz with ARPA", "lmplz to a pipe")
BINARIES = {"trie": ("-q", "8", "-b", "8"), "packed": ("-q", "8", "-b", "8", "-a", "64"), "probing": ()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", nargs="+", type=int, default=[10], help="millions of tokens")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="memory limit of both programs")
    parser.add_argument("--rounds", type=int, default=3, help="times that each program builds its model")
    parser.add_argument("--kenlm", type=Path, metavar="DIR", help="folder with lmplz and build_binary")
    parser.add_argument("--parts", nargs="+", default=["build", "load", "arpa"], choices=["build", "load", "arpa"])
    parser.add_argument("--programs", nargs="+", default=PROGRAMS[:4], choices=PROGRAMS, help="builders to measure")
    parser.add_argument("--binaries", nargs="+", default=BINARIES, choices=BINARIES, help="KenLM's binary files")
    parser.add_argument("--work", type=Path, help="folder for the files (default: a temporary one)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child[0]](**json.loads(arguments.child[1]))))
        return
    print(f"torch {torch.__version__}, NumPy {np.__version__}, {os.cpu_count()} cores, limit {arguments.memory} MiB")
    for millions in arguments.millions:
        with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
            measure(millions, arguments, Path(folder))


def measure(millions: int, arguments: argparse.Namespace, folder: Path) -> None:
    vocab_size = make_files(millions, folder)
    print(f"\n{millions} M tokens, {vocab_size - 2:,} types, load {os.getloadavg()[0]:.1f}", flush=True)
    (folder / "temporary").mkdir()
    programs = {name: ours_builder(name, vocab_size, arguments.memory, folder) for name in KINDS}
    programs |= kenlm_builders(arguments, folder) if arguments.kenlm else {}
    programs = {name: build for name, build in programs.items() if name in arguments.programs}
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for place in range(arguments.rounds):
        for name, build in programs.items():
            if place and name == "lmplz with ARPA":
                continue  # Once: the file is what the other parts need.
            seconds, processor, text = build()
            taken[name].append(processor)
            print(f"  {name}: {seconds:.1f} s, {processor:.1f} s of processor time; {text}", flush=True)
    for name, own in taken.items():
        theirs = next((times for other, times in taken.items() if other.startswith("lmplz")), own)
        ratios = [one / other for one, other in zip(own, theirs, strict=False)]
        print(
            f"  {name}: processor time {', '.join(f'{value:.1f}' for value in own)} s; "
            f"{np.median(ratios):.2f} times lmplz ({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
            flush=True,
        )
    if (folder / "kenlm.arpa").exists():
        binaries(arguments, folder)
        if "arpa" not in arguments.parts:
            (folder / "kenlm.arpa").unlink()
    for part in arguments.parts:
        if part != "build":
            for line in child(part, folder, folder=str(folder))["lines"]:
                print(f"  {line}", flush=True)


def make_files(millions: int, folder: Path) -> int:
    """Write the training text as ids and as words, and the held-out ids; return the number of types."""
    ids = made_text(millions * 1_000_000 + HELD_OUT, VOCABULARY)
    train, held_out = ids[:-HELD_OUT], ids[-HELD_OUT:]
    # Words that do not occur in the training text are left out of the other one: KenLM has one <unk> for all of them.
    seen = np.bincount(train, minlength=VOCABULARY) > 0
    number = (np.cumsum(seen) - 1).astype(np.uint16)
    train = number[train]
    np.save(folder / "train.npy", train)
    np.save(folder / "held_out.npy", number[held_out[seen[held_out]]])
    words = np.array([f"w{index}" for index in range(VOCABULARY)])
    with (folder / "train.txt").open("w") as file:
        for first in range(0, len(train), 1 << 20):
            file.write(" ".join(words[train[first : first + (1 << 20)]]) + " ")
        file.write("\n")
    # KenLM adds <unk> and </s>.
    return int(seen.sum()) + 2


Build = Callable[[], tuple[float, float, str]]


def ours_builder(name: str, vocab_size: int, limit: int, folder: Path) -> Build:
    def build() -> tuple[float, float, str]:
        with Watch(folder / "temporary") as watch:
            found = child("build", folder, folder=str(folder), name=name, limit=limit, vocab_size=vocab_size)
        entries = found["ngrams"]
        return (
            found["fitted"] + found["saved"],
            found["processor"],
            (
                f"{found['fitted']:.1f} s to fit, {found['saved']:.1f} s to save; {found['peak']:,.0f} MiB, "
                f"{found['base']:,.0f} of them imports; {watch.most / 2**30:.2f} GiB temporary; "
                f"{entries / 1e6:.1f} M n-grams, {found['bytes'] / entries:.2f} bytes each in the checkpoint"
            ),
        )

    return build


def kenlm_builders(arguments: argparse.Namespace, folder: Path) -> dict[str, Build]:
    def builder(*options: str) -> Build:
        def build() -> tuple[float, float, str]:
            for path in folder.glob("kenlm.[0-9v]*"):
                path.unlink()
            temporary = folder / "temporary"
            with Watch(temporary) as watch:
                seconds, processor, peak = timed(
                    [
                        str(arguments.kenlm / "lmplz"), "-o", str(ORDER), "-S", f"{arguments.memory}M",
                        "-T", f"{temporary}/", "--text", str(folder / "train.txt"), "--discount_fallback", *options,
                    ]
                )  # fmt: skip
            return seconds, processor, f"{peak:,.0f} MiB; {watch.most / 2**30:.2f} GiB temporary"

        return build

    intermediate, text = str(folder / "kenlm"), str(folder / "kenlm.arpa")
    return {
        "lmplz": builder("--intermediate", intermediate),
        "lmplz with ARPA": builder("--arpa", text),
        "lmplz to a pipe": builder(),  # as text that nobody keeps
    }


def binaries(arguments: argparse.Namespace, folder: Path) -> None:
    """Build KenLM's binary files; print their sizes."""
    with (folder / "kenlm.arpa").open() as file:
        entries = sum(int(line.split("=")[1]) for line in (next(file) for _ in range(ORDER + 1)) if "=" in line)
    for name in arguments.binaries:
        binary, kind = folder / f"kenlm-{name}.bin", "probing" if name == "probing" else "trie"
        options = [*BINARIES[name], "-T", f"{folder / 'temporary'}/", kind, str(folder / "kenlm.arpa"), str(binary)]
        seconds, *_ = timed([str(arguments.kenlm / "build_binary"), *options])
        size = binary.stat().st_size / entries
        print(
            f"  build_binary {' '.join([*BINARIES[name], kind])}: {seconds:.1f} s, {size:.2f} bytes an n-gram",
            flush=True,
        )


def child(step: str, directory: Path, **options: Any) -> dict[str, Any]:
    """Run a step in a fresh process; return its result."""
    command = [sys.executable, __file__, "--child", step, json.dumps(options)]
    environment = os.environ | {"TMPDIR": str(directory / "temporary")}
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    result: dict[str, Any] = json.loads(found.stdout)
    return result


class Watch:
    """Measure the largest size of a folder while the block runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.most, self._stop = folder, 0, threading.Event()

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            self.most = max(self.most, used_bytes(self.folder))


def used_bytes(folder: Path) -> int:
    """Return the size of a folder, deleted files that a process here has open included."""
    size = 0
    for path in [found for place in existing(folder) for found in [place, *existing(place)]]:
        with suppress(OSError):
            size += path.stat().st_blocks * 512
    for process in existing(Path("/proc")):
        for path in existing(process / "fd") if process.name.isdigit() else []:
            with suppress(OSError):
                status = path.stat()
                if status.st_nlink == 0 and str(path.readlink()).startswith(f"{folder}/"):
                    size += status.st_blocks * 512
    return size


def existing(folder: Path) -> list[Path]:
    """Return what a folder holds; nothing if it is gone or is a file."""
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def build(folder: str, name: str, limit: int, vocab_size: int) -> dict[str, Any]:
    ids = np.load(Path(folder) / "train.npy", mmap_mode="r")
    model = NGramModel(vocab_size, ORDER, memory_limit_mib=limit, quantize_bits=KINDS[name])
    base, path = peak_mebibytes(), Path(folder) / f"{name}.pt"
    begin, processor = time.perf_counter(), time.process_time()
    model.fit_counts(ids, eos_id=0)
    fitted, peak = time.perf_counter() - begin, peak_mebibytes()
    save_checkpoint(path, model, {})
    saved, entries = time.perf_counter() - begin - fitted, sum(model.ngram_counts())
    return {
        "fitted": fitted,
        "saved": saved,
        "processor": time.process_time() - processor,
        "peak": peak,
        "base": base,
        "ngrams": entries,
        "bytes": path.stat().st_size,
    }


def load(folder: str) -> dict[str, Any]:
    """Measure loading, perplexity and speed of all models; the rounds take turns."""
    torch.set_num_threads(1)  # like KenLM
    held_out = np.load(Path(folder) / "held_out.npy")
    lines: list[str] = []
    actions: dict[str, Callable[[], Any]] = {}
    for name in KINDS:
        begin, used = time.perf_counter(), time.process_time()
        model = load_model(Path(folder) / f"{name}.pt")
        wall, used = time.perf_counter() - begin, time.process_time() - used
        assert isinstance(model, NGramModel)
        actions[name] = partial(nll, model, held_out, 0)
        perplexity = math.exp(float(nll(model, held_out, 0).double().mean()))
        lines.append(f"{name}: loaded in {wall:.2f} s ({used:.2f} s of processor time); perplexity {perplexity:.4f}")
        probing = Path(folder) / "kenlm-probing.bin"
        if name == "exact" and probing.exists():
            apart = np.abs(token_scores(probing, held_out) + nll(model, held_out, 0).double().numpy())
            lines.append(f"exact and kenlm probing: {apart.mean():.1e} nats apart, {(apart > 1e-4).sum()} by over 1e-4")
    for name in ("trie", "packed", "probing"):
        path = Path(folder) / f"kenlm-{name}.bin"
        if path.exists():
            scorer = kenlm_scorer(path, held_out)
            actions[f"kenlm {name}"] = scorer
            lines.append(f"kenlm {name}: perplexity {10 ** (-scorer() / len(held_out)):.4f}")
    speeds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(SPEED_ROUNDS):
        for name, action in actions.items():
            begin = time.perf_counter()
            action()
            speeds[name].append(len(held_out) / (time.perf_counter() - begin) / 1e6)
    for name, own in speeds.items():
        ratio = np.median(np.array(own) / np.array(speeds["exact"]))
        lines.append(f"{name}: {np.median(own):.2f} M tokens/s, {ratio:.2f} of exact")
    return {"lines": lines}


def kenlm_scorer(path: Path, ids: npt.NDArray[Any]) -> Callable[[], float]:
    """Return a function that scores a text by KenLM: log10-probability of all words after the first, `w0`."""
    import kenlm

    model, line = kenlm.Model(str(path)), " ".join(f"w{index}" for index in [0, *ids.tolist()])
    first = model.score("w0", bos=False, eos=False)
    return lambda: float(model.score(line, bos=False, eos=False) - first)


def token_scores(path: Path, ids: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the natural log-probability of each word by KenLM, the first one after `w0`."""
    import kenlm

    line = " ".join(f"w{index}" for index in [0, *ids.tolist()])
    scores = [score for score, _, _ in kenlm.Model(str(path)).full_scores(line, bos=False, eos=False)]
    return np.array(scores[1:]) * math.log(10)


def arpa(folder: str) -> dict[str, Any]:
    """Measure writing and reading ARPA files; compare the scores of both programs, each on both files."""
    held_out, lines = np.load(Path(folder) / "held_out.npy"), []
    own, theirs = Path(folder) / "ours.arpa", Path(folder) / "kenlm.arpa"
    model = load_model(Path(folder) / "exact.pt")
    assert isinstance(model, NGramModel)
    # KenLM's <unk> and </s> get a share of the unigrams, like the two words here that never occur.
    words = [f"w{index}" for index in range(model.vocab_size - 2)] + ["<unk>", "</s>"]
    begin, base = time.perf_counter(), peak_mebibytes()
    write_arpa(model, words, own)
    taken, peak = time.perf_counter() - begin, peak_mebibytes()
    lines.append(f"ARPA written in {taken:.1f} s, {peak - base:,.0f} MiB on top of the loaded model")
    scores = nll(model, held_out, 0).double().neg().numpy()

    def compare(name: str, other: npt.NDArray[np.float64]) -> None:
        perplexities = math.exp(-scores.mean()), math.exp(-other.mean())
        apart = np.abs(other - scores)
        lines.append(
            f"{name}: {apart.max():.1e} nats apart at most, {apart.mean():.1e} on average; perplexities "
            f"{perplexities[0]:.4f} and {perplexities[1]:.4f}"
        )

    compare("our model here and in KenLM", token_scores(own, held_out))
    own.unlink()
    if theirs.exists():
        compare("our model and that of lmplz", token_scores(theirs, held_out))
        begin = time.perf_counter()
        read, _ = read_arpa(theirs, words)
        lines.append(f"ARPA of lmplz read in {time.perf_counter() - begin:.1f} s")
        scores = nll(read, held_out, 0).double().neg().numpy()
        compare("that of lmplz here and in KenLM", token_scores(theirs, held_out))
    return {"lines": lines}


CHILDREN: dict[str, Callable[..., dict[str, Any]]] = {"build": build, "load": load, "arpa": arpa}


def timed(command: list[str]) -> tuple[float, float, float]:
    """Run a command; return its seconds, those of processor time, and its peak memory in MiB."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
