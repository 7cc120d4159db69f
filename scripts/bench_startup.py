"""Start-up time of the commands: `--help` of each, and `tl-train` up to its first update.

    python scripts/bench_startup.py                               # WikiText-2 in ../shared/data/wikitext-2
    python scripts/bench_startup.py --rounds 9 --threads 1 --output startup.json
    python scripts/bench_startup.py --overrides data=sotu         # another corpus
    python scripts/bench_startup.py --imports                     # and the imports, the slowest first

Every start is a new process; the time includes process creation and imports. A first start of each, which is not
counted, builds the token cache and the byte code and warms the disk cache. CPU seconds are those of the process with
all its threads; on a busy machine they are more reliable than the wall clock.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIKITEXT = Path(__file__).resolve().parents[1] / "../shared/data/wikitext-2"
COMMANDS = ("train", "grid", "explore", "eval", "generate", "export", "analyze", "score")
GIVEN = ("optim.lr=3e-3", "optim.weight_decay=0", "stages=[fit]")
TRAININGS: dict[str, tuple[str, ...]] = {
    "tl-train, rates given, stages=[fit]": GIVEN,
    "tl-train, all six stages": (),
    "tl-train model=transformer, stages=[fit]": (*GIVEN, "model=transformer"),
}
MARK = "first update after "

FIRST_UPDATE = f"""
import os, sys, time

# As the entry point does before torch is imported.
from torch_linguist.cli import entry

os.environ.setdefault("GOMP_SPINCOUNT", entry.GOMP_SPINCOUNT)
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", entry.HUGE_PAGES)

from torch_linguist.cli.train import main
from torch_linguist.trainer.loop import Loop

update = Loop.update


def first_update(loop):
    loss = float(update(loop))
    print("{MARK}" + f"{{time.monotonic()}} {{time.process_time()}} {{loss}}", flush=True)
    os._exit(0)


Loop.update = first_update
sys.exit(main())
"""
"""`tl-train` up to its first update. Everything imported here is needed up to that point."""

Row = dict[str, Any]


class Bench:
    """Starts processes in temporary folders.

    Args:
        rounds: number of starts of each kind.
        threads: number of torch threads; None for the default.
        overrides: overrides of every training.
    """

    def __init__(self, rounds: int, threads: int | None, overrides: Sequence[str]) -> None:
        self.rounds, self.overrides = rounds, overrides
        self.environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        if threads is not None:
            self.environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}

    def help(self, command: str) -> tuple[float, float]:
        """Return wall-clock and CPU seconds of a help page."""
        before, begin = os.times(), time.monotonic()
        self.start(["-m", f"torch_linguist.cli.{command}", "--help"])
        seconds, after = time.monotonic() - begin, os.times()
        busy = after.children_user + after.children_system - before.children_user - before.children_system
        return seconds, busy

    def training(self, overrides: Sequence[str]) -> tuple[float, float]:
        """Return wall-clock and CPU seconds up to the end of the first update."""
        begin = time.monotonic()
        shown = self.start(["-c", FIRST_UPDATE, *self.overrides, *overrides])
        ended, busy, _ = re.search(rf"{MARK}(\S+) (\S+) (\S+)", shown).groups()  # type: ignore[union-attr]
        return float(ended) - begin, float(busy)

    def start(self, arguments: Sequence[str]) -> str:
        """Run Python in an empty folder and return its output."""
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, *arguments], cwd=folder, env=self.environment, capture_output=True, text=True
            )
        if done.returncode:
            sys.exit(f"{' '.join(arguments[2:])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def rows(self) -> Iterator[Row]:
        """Yield the medians of every kind of start."""
        for command in COMMANDS:
            yield self.measured(f"tl-{command} --help", lambda command=command: self.help(command))
        for name, overrides in TRAININGS.items():
            yield self.measured(name, lambda overrides=overrides: self.training(overrides))

    def measured(self, name: str, start: Any) -> Row:
        """Start one kind of process `rounds` times, after one warm-up."""
        start()
        taken = [start() for _ in range(self.rounds)]
        wall, busy = zip(*taken, strict=True)
        return {
            "what": name,
            "wall_seconds": statistics.median(wall),
            "cpu_seconds": statistics.median(busy),
            "fastest_wall_seconds": min(wall),
            "rounds": taken,
        }

    def imports(self) -> list[tuple[float, str]]:
        """Return the cumulative import seconds of each module up to the first update."""
        found = []
        command = [sys.executable, "-X", "importtime", "-c", FIRST_UPDATE, *self.overrides, *GIVEN]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command, cwd=folder, env=self.environment, capture_output=True, text=True, check=True)
        for line in done.stderr.splitlines():
            parts = re.match(r"import time:\s+\d+ \|\s+(\d+) \| +(\S+)", line)
            if parts:
                found.append((int(parts[1]) / 1e6, parts[2]))
        return sorted(found, reverse=True)


def show(rows: Sequence[Row]) -> None:
    table = Table("start", "seconds", "CPU seconds", "fastest")
    for row in rows:
        figures = (row[key] for key in ("wall_seconds", "cpu_seconds", "fastest_wall_seconds"))
        table.add_row(escape(row["what"]), *(f"{figure:.2f}" for figure in figures))
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="number of starts of each kind")
    parser.add_argument("--threads", type=int, help="number of torch threads")
    parser.add_argument(
        "--overrides",
        nargs="+",
        default=["data=wikitext2", f"data.path={WIKITEXT.resolve()}"],
        help="training overrides",
    )
    parser.add_argument("--imports", action="store_true", help="also list the slowest imports")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the results as JSON")
    arguments = parser.parse_args()
    bench = Bench(arguments.rounds, arguments.threads, arguments.overrides)
    rows = list(bench.rows())
    show(rows)
    found: dict[str, Any] = {"python": sys.version.split()[0], "threads": arguments.threads, "rows": rows}
    if arguments.imports:
        found["imports"] = bench.imports()
        for seconds, module in found["imports"][:40]:
            print(f"{seconds:8.3f} s  {module}")
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
