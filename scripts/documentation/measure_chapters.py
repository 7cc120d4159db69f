"""Run chapters of the guide at full size, one at a time, and note time and memory of each.

    python scripts/documentation/measure_chapters.py                     # all chapters
    python scripts/documentation/measure_chapters.py 03 08               # chapters 3 and 8

Each result is stored in `docs/records/guide-chapters.json`, from which the table in `docs/guide/index.md` is written.
The outputs go to the cache of the documentation: `GUIDE_EXECUTION=cache make docs` shows them without a second run.
"""

import argparse
import datetime
import json
import os
import resource
import runpy
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.read import read_myst_markdown_notebook

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guide"
RECORD = ROOT / "docs" / "records" / "guide-chapters.json"
BEGIN = "<!-- measured: begin, written by scripts/documentation/measure_chapters.py -->\n"
END = "<!-- measured: end -->\n"


def measure(chapter: str) -> dict[str, float | str]:
    """Execute a chapter in an empty folder; return what it took.

    Runs in a process of its own, as the operating system adds up the use of all children of a process.
    """
    path = GUIDE / f"{chapter}.md"
    notebook = read_myst_markdown_notebook(path.read_text(encoding="utf-8"), path=path)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = single_nb_execution(notebook, cwd=folder, timeout=3600, allow_errors=False)
    seconds = time.monotonic() - begin
    if result.err is not None:
        raise RuntimeError(f"chapter {chapter} stopped:\n{result.exc_string}")
    cache = get_cache(runpy.run_path(str(ROOT / "docs" / "conf.py"))["nb_execution_cache_path"])
    bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss / 1024),
        "torch": torch.__version__,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


def table(record: dict[str, dict[str, float | str]]) -> str:
    """Return the record as a Markdown table, with a row of sums."""
    lines = ["| chapter | minutes | processor minutes | peak memory (MiB) |", "|---|---|---|---|"]
    for chapter, row in sorted(record.items()):
        minutes, processor = float(row["seconds"]) / 60, float(row["processor_seconds"]) / 60
        lines.append(f"| [{int(chapter[:2])}]({chapter}.md) | {minutes:.1f} | {processor:.1f} | {row['peak_mib']:,} |")
    sums = [sum(float(row[key]) for row in record.values()) / 60 for key in ("seconds", "processor_seconds")]
    lines.append(f"| all | {sums[0]:.0f} | {sums[1]:.0f} | {max(row['peak_mib'] for row in record.values()):,} |")
    return "\n".join(lines) + "\n"


def write_table(record: dict[str, dict[str, float | str]]) -> None:
    """Write the table into the introduction of the guide, between its markers."""
    path = GUIDE / "index.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(before + BEGIN + table(record) + END + after, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Measure the chapters that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("chapters", nargs="*", help="beginnings of file names, such as 03 (default: all)")
    options = parser.parse_args(arguments)
    os.environ.pop("TORCH_LINGUIST_GUIDE", None)
    os.environ |= {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}  # As in docs/conf.py.
    names = sorted(path.stem for path in GUIDE.glob("[0-9]*.md"))
    chosen = [name for name in names if name.startswith(tuple(options.chapters or names))]
    failed = 0
    # A new process for each chapter: peak memory is the maximum over all earlier children.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for name in chosen:
            try:
                row = pool.submit(measure, name).result()
            except RuntimeError as error:
                print(error, file=sys.stderr, flush=True)
                failed += 1
                continue
            print(f"{name}: {row}", flush=True)
            record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
            record = {key: value for key, value in record.items() if key in names} | {name: row}
            RECORD.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            write_table(record)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
