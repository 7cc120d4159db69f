"""Benchmark of large n-gram models: built on disk and quantized, beside KenLM's `lmplz` and `build_binary`.

    python scripts/bench_ngram_scale.py --kenlm ~/kenlm/build/bin                # 10 M tokens of made text
    python scripts/bench_ngram_scale.py --kenlm ~/kenlm/build/bin --millions 50 --memory 2048
    python scripts/bench_ngram_scale.py --arpa  # without KenLM, with an ARPA file

Order 5, 50,000 types. Both programs start from tokens in a file and work with the same memory limit. Each command runs
in a process of its own; its peak memory includes the interpreter and libraries. KenLM's programs are built from source
(`cmake .. && make lmplz build_binary`).
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from bench_ngram import made_text, nll, peak_mebibytes

from torch_linguist.checkpoint import load_model, save_checkpoint
from torch_linguist.model.ngram import NGramModel, write_arpa

VOCABULARY = 50_000
ORDER = 5
HELD_OUT = 200_000
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", nargs="+", type=int, default=[10], help="millions of tokens")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="memory limit of both programs")
    parser.add_argument("--kenlm", type=Path, metavar="DIR", help="folder with lmplz and build_binary")
    parser.add_argument("--arpa", action="store_true", help="also write an ARPA file of our model")
    parser.add_argument("--work", type=Path, help="folder for the files (default: a temporary one)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child[0]](json.loads(arguments.child[1]))))
        return
    print(f"torch {torch.__version__}, NumPy {np.__version__}, {os.cpu_count()} cores, limit {arguments.memory} MiB")
    for millions in arguments.millions:
        with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
            measure(millions, arguments, Path(folder))


def measure(millions: int, arguments: argparse.Namespace, folder: Path) -> None:
    ids = made_text(millions * 1_000_000 + HELD_OUT, VOCABULARY)
    # Words that do not occur in the training text are left out of the other one: KenLM has one <unk> for all of them.
    types, train = np.unique(ids[:-HELD_OUT], return_inverse=True)
    held_out = np.searchsorted(types, ids[-HELD_OUT:][np.isin(ids[-HELD_OUT:], types)])
    np.save(folder / "train.npy", train.astype(np.uint16))
    np.save(folder / "held_out.npy", held_out)
    # KenLM adds <unk> and </s>.
    vocab_size = len(types) + 2
    print(f"\n{millions} M tokens, {len(types):,} types")
    for bits in (8, None):
        options = {"folder": str(folder), "bits": bits, "limit": arguments.memory, "vocab_size": vocab_size}
        used, found = child("build", options, folder)
        entries, name = found["ngrams"], "exact" if bits is None else "8 bits"
        print(
            f"  ours, {name}: {found['seconds']:.1f} s to fit, {found['saved']:.1f} s to save; "
            f"{found['peak']:,.0f} MiB, {found['base']:,.0f} of them imports; {used / 2**30:.2f} GiB temporary; "
            f"{entries / 1e6:.1f} M n-grams, {found['bytes'] / entries:.2f} bytes each in the checkpoint"
        )
    print(f"  {child('load', {'folder': str(folder)}, folder)[1]['text']}")
    if arguments.arpa:
        print(f"  {child('arpa', {'folder': str(folder)}, folder)[1]['text']}")
    if arguments.kenlm:
        kenlm(train, held_out, arguments, folder)


def child(name: str, options: dict[str, Any], folder: Path) -> tuple[int, dict[str, Any]]:
    """Run a step in a fresh process; return the largest size of its temporary files in bytes, and its result."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, __file__, "--child", name, json.dumps(options)]
    with Watch(temporary) as watch:
        found = subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(temporary)}
        )
    return watch.most, json.loads(found.stdout)


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
            size = 0
            for path in self.folder.rglob("*"):
                try:
                    size += path.stat().st_size
                except OSError:
                    continue
            self.most = max(self.most, size)


def build(options: dict[str, Any]) -> dict[str, Any]:
    folder, bits = Path(options["folder"]), options["bits"]
    ids = np.load(folder / "train.npy", mmap_mode="r")
    model = NGramModel(options["vocab_size"], ORDER, memory_limit_mib=options["limit"], quantize_bits=bits)
    base = peak_mebibytes()
    begin = time.perf_counter()
    model.fit_counts(ids, eos_id=0)
    seconds, peak = time.perf_counter() - begin, peak_mebibytes()
    begin = time.perf_counter()
    path = folder / f"{bits}.pt"
    save_checkpoint(path, model, {})
    return {
        "seconds": seconds,
        "saved": time.perf_counter() - begin,
        "peak": peak,
        "base": base,
        "ngrams": sum(model.ngram_counts()),
        "bytes": path.stat().st_size,
    }


def load(options: dict[str, Any]) -> dict[str, Any]:
    folder = Path(options["folder"])
    held_out = np.load(folder / "held_out.npy")
    text, models, perplexities = [], [], []
    torch.set_num_threads(1)  # like KenLM
    for bits in (None, 8):
        begin = time.perf_counter()
        model = load_model(folder / f"{bits}.pt")
        text.append(f"{bits or 'exact'}: loaded in {time.perf_counter() - begin:.2f} s")
        assert isinstance(model, NGramModel)
        models.append(model)
        perplexities.append(math.exp(float(nll(model, held_out, 0).double().mean())))
    speeds = []
    for _ in range(ROUNDS):
        for model in models:
            begin = time.perf_counter()
            nll(model, held_out, 0)
            speeds.append(len(held_out) / (time.perf_counter() - begin) / 1e6)
    text.append(f"M tokens/s {np.median(speeds[::2]):.2f} exact, {np.median(speeds[1::2]):.2f} quantized (pairs: ")
    text[-1] += ", ".join(f"{b / a:.2f}" for a, b in zip(speeds[::2], speeds[1::2], strict=True)) + ")"
    text.append(f"perplexity {perplexities[0]:.4f} and {perplexities[1]:.4f}")
    return {"text": "; ".join(text)}


def arpa(options: dict[str, Any]) -> dict[str, Any]:
    folder = Path(options["folder"])
    model = load_model(folder / "None.pt")
    assert isinstance(model, NGramModel)
    begin, base = time.perf_counter(), peak_mebibytes()
    write_arpa(model, [f"w{index}" for index in range(model.vocab_size)], folder / "ours.arpa")
    seconds, peak = time.perf_counter() - begin, peak_mebibytes()
    return {"text": f"ours, ARPA written in {seconds:.1f} s, {peak - base:,.0f} MiB on top of the loaded model"}


CHILDREN = {"build": build, "load": load, "arpa": arpa}


def kenlm(ids: npt.NDArray[Any], held_out: npt.NDArray[Any], arguments: argparse.Namespace, folder: Path) -> None:
    words = np.array([f"w{index}" for index in range(VOCABULARY)])
    with (folder / "train.txt").open("w") as file:
        for first in range(0, len(ids), 1 << 20):
            file.write(" ".join(words[ids[first : first + (1 << 20)]]) + " ")
        file.write("\n")
    temporary, model = folder / "temporary", folder / "kenlm.arpa"
    common = ["-o", str(ORDER), "-S", f"{arguments.memory}M", "-T", f"{temporary}/"]
    text = ["--text", str(folder / "train.txt")]
    for name, options in (("", ["--intermediate", str(folder / "kenlm")]), (" and ARPA", ["--arpa", str(model)])):
        with Watch(temporary) as watch:
            seconds, peak = timed([str(arguments.kenlm / "lmplz"), *common, *text, *options])
        print(f"  lmplz{name}  {seconds:.1f} s, {peak:,.0f} MiB, {watch.most / 2**30:.2f} GiB temporary")
        for path in folder.glob("kenlm.[0-9]*"):
            path.unlink()
    for extra in ([], ["-a", "64"]):
        binary = folder / "kenlm.bin"
        program = [str(arguments.kenlm / "build_binary"), "-q", "8", "-b", "8", *extra, "-T", f"{temporary}/", "trie"]
        taken, _ = timed([*program, str(model), str(binary)])
        with model.open() as file:
            entries = sum(int(line.split("=")[1]) for line in (next(file) for _ in range(ORDER + 1)) if "=" in line)
        size = binary.stat().st_size
        print(f"  build_binary {' '.join(extra)} trie, 8 bits  {taken:.1f} s, {size / entries:.2f} bytes an n-gram")
    import kenlm as module

    started = time.perf_counter()
    scorer = module.Model(str(folder / "kenlm.bin"))
    loaded = time.perf_counter() - started
    line = " ".join(words[held_out])
    started = time.perf_counter()
    scores = [score for score, _, _ in scorer.full_scores(f"w0 {line}", bos=False, eos=False)][1:]
    seconds = time.perf_counter() - started
    print(f"  kenlm, quantized trie: loaded in {loaded:.2f} s, {len(held_out) / seconds / 1e6:.2f} M tokens/s, "
          f"perplexity {10 ** -np.mean(scores):.4f}")  # fmt: skip
    if model.stat().st_size < shutil.disk_usage(folder).free:
        exact = module.Model(str(model))
        exact_scores = [score for score, _, _ in exact.full_scores(f"w0 {line}", bos=False, eos=False)][1:]
        print(f"  kenlm, ARPA of lmplz: perplexity {10 ** -np.mean(exact_scores):.4f}")


def timed(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds and its peak memory in MiB."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
