"""Scoring of lines from file to file, beside KenLM, a plain loop of transformers, and minicons.

Every row is a process of its own that reads a file of lines and writes their log-probabilities. It runs on one line,
which shows what the start costs, and on all lines; the rows take turns for several rounds, and the medians are shown.
Other work on the machine disturbs CPU seconds less than seconds. The n-gram rows read the same model, as a run folder
and as an ARPA file.

    tl-export outputs/ngram --arpa model.arpa && tl-export outputs/gpt --hf my-model
    python scripts/bench_score.py lines.txt --ngram outputs/ngram --arpa model.arpa --query kenlm/build/bin/query
    python scripts/bench_score.py lines.txt --transformer outputs/gpt --hf my-model
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

KENLM = """
import sys, kenlm
model = kenlm.Model(sys.argv[1])
with open(sys.argv[2], encoding="utf-8") as lines, open(sys.argv[3], "w") as output:
    for line in lines:
        output.write(f"{model.score(line.rstrip()):.6f}\\n")
"""

TRANSFORMERS = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
start = torch.tensor([[tokenizer.convert_tokens_to_ids("<eos>")]])
with open(sys.argv[2], encoding="utf-8") as lines, open(sys.argv[3], "w") as output, torch.inference_mode():
    for line in lines:
        ids = tokenizer(line.rstrip("\\n"), return_tensors="pt", add_special_tokens=False).input_ids.long()
        ids = torch.cat([start, ids, start], dim=1)
        logs = torch.log_softmax(model(input_ids=ids[:, :-1]).logits, -1)
        output.write(f"{logs.gather(-1, ids[:, 1:, None]).sum():.6f}\\n")
"""

MINICONS = """
import sys, torch
from minicons import scorer
model = scorer.IncrementalLMScorer(sys.argv[1], "cpu")
with open(sys.argv[2], encoding="utf-8") as lines, open(sys.argv[3], "w") as output:
    texts = [line.rstrip("\\n") for line in lines]
    for first in range(0, len(texts), 64):
        found = model.sequence_score(texts[first : first + 64], reduction=lambda logs: logs.sum().item())
        output.writelines(f"{one:.6f}\\n" for one in found)
"""


class Cost(NamedTuple):
    """CPU seconds of a process on one line and on all lines, and seconds on all lines."""

    start: float
    whole: float
    seconds: float


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path, help="file of lines")
    parser.add_argument("--count", type=int, default=100_000, help="number of lines")
    parser.add_argument("--ngram", help="run folder of an n-gram model")
    parser.add_argument("--arpa", help="the same model as an ARPA file")
    parser.add_argument("--query", help="KenLM's program `query`")
    parser.add_argument("--transformer", help="run folder of a Transformer")
    parser.add_argument("--hf", help="the same model, exported by tl-export --hf")
    parser.add_argument("--rounds", type=int, default=3, help="times that each row is measured")
    parser.add_argument("--minicons", action="store_true", help="also measure minicons, which must be installed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, "one.txt"), Path(folder, "all.txt")]
        with arguments.lines.open(encoding="utf-8") as source:
            texts = [line for line in islice(source, arguments.count) if line.strip()]
        for file, count in zip(files, (1, len(texts)), strict=True):
            file.write_text("".join(texts[:count]), encoding="utf-8")
        print(f"{len(texts):,} lines, {sum(len(text.split()) for text in texts):,} words\n", flush=True)
        rows = commands(arguments)
        costs: dict[str, list[Cost]] = {name: [] for name in rows}
        for _ in range(arguments.rounds):
            for name, command in rows.items():
                costs[name].append(measured(command, files, Path(folder, "out")))
    print("| from file to file | seconds | lines/s | CPU seconds | of these, start | lines per CPU second after it |")
    print("|---|---|---|---|---|---|")
    for name, found in costs.items():
        report(name, Cost(*map(median, zip(*found, strict=True))), texts)
    return 0


def commands(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each row."""
    ours = [sys.executable, "-m", "torch_linguist.cli.score"]
    rows = {}
    if arguments.ngram:
        rows["tl-score, n-gram"] = [*ours, arguments.ngram, "FILE", "--to", "OUT"]
    if arguments.query:
        rows["KenLM `query`"] = [arguments.query, "-v", "sentence", arguments.arpa]
    if arguments.arpa:
        rows["KenLM `score`, Python"] = python(KENLM, arguments.arpa)
        rows["tl-score, ARPA file"] = [*ours, arguments.arpa, "FILE", "--to", "OUT"]
    if arguments.transformer:
        rows["tl-score, Transformer"] = [*ours, arguments.transformer, "FILE", "--to", "OUT"]
        rows["tl-score, Transformer, bf16"] = [*rows["tl-score, Transformer"], "--precision", "bf16"]
    if arguments.hf:
        rows["`transformers`, a loop"] = python(TRANSFORMERS, arguments.hf)
    if arguments.hf and arguments.minicons:
        rows["minicons, line by line"] = python(MINICONS.replace("64", "1"), arguments.hf)
        rows["minicons, batches of 64"] = python(MINICONS, arguments.hf)
    return rows


def python(code: str, model: str) -> list[str]:
    """Return the command that runs a program on a model, a file of lines and a file of scores."""
    return [sys.executable, "-c", code, model, "FILE", "OUT"]


def measured(command: Sequence[str], files: Sequence[Path], output: Path) -> Cost:
    """Measure a command; FILE and OUT in it stand for paths. A command without them reads and writes its pipes."""
    (start, _), (whole, seconds) = (
        spent([{"FILE": str(file), "OUT": str(output)}.get(part, part) for part in command], file, output)
        for file in files
    )
    return Cost(start, whole, seconds)


def spent(command: Sequence[str], file: Path, output: Path) -> tuple[float, float]:
    """Run a command with one thread for computations; return its CPU time, user and system, and the time it took."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # Modules are compiled once, as pip does when it installs them.
    with file.open("rb") as source, Path(f"{output}.pipe").open("wb") as sink:
        subprocess.run(command, stdin=source, stdout=sink, stderr=subprocess.DEVNULL, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - begin


def report(name: str, cost: Cost, texts: Sequence[str]) -> None:
    """Print a row of the table."""
    rate, later = len(texts) / cost.seconds, (len(texts) - 1) / max(cost.whole - cost.start, 1e-3)
    print(
        f"| {name} | {cost.seconds:.2f} | {rate:,.0f} | {cost.whole:.2f} | {cost.start:.2f} | {later:,.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
