"""Replay an entry of the book of records and compare its scores.

    python scripts/check_record.py                          # list the entries
    python scripts/check_record.py wikitext2_10min --data-path FOLDER
    python scripts/check_record.py wikitext2_10min --data-path FOLDER --equal-tokens
    python scripts/check_record.py --write-docs             # rewrite docs/records.md from records/
    python scripts/check_record.py --check-docs             # fail if docs/records.md is out of date

An entry is a file `records/NAME.yaml`. Its scores, perplexities or (`unit: nats`) losses in nats per token, hold if
each is at most (1 + tolerance) times the recorded one. Entries limited by the clock depend on the machine, so the
replay first measures its float32 GFLOP/s. It writes them, with all that it found, to `measured.yaml` in its folder, in
the form of an entry. `--equal-tokens` trains on the recorded number of tokens instead, whatever time that takes.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "records"
DOCS = ROOT / "docs" / "records.md"
REQUIRED = {"track", "kind", "version", "overrides", "machine", "gflops", "tokens_per_second", "scores", "tolerance"}
OPTIONAL = {"evaluate", "scored_model", "notes", "failed", "tokens", "members", "unit"}
COLUMNS = {"perplexity": "perplexity", "nats": "loss"}
"""Name of a score in `summary.json` and `scores.csv`, by the unit of an entry."""

HEADER = """\
# Book of records

The best measured scores, by corpus and budget. `static` is one model without adaptation; `adaptive` may adapt to the
text it is scored on or mix models. `python scripts/check_record.py NAME` trains an entry again and says whether its
scores hold. To beat one, add a file to `records/` with your overrides and measured scores, then run
`python scripts/check_record.py --write-docs`. Tune on valid only; score test once.

This page is written from `records/`.
"""


def read_record(name: str) -> dict[str, Any]:
    """Return an entry.

    Raises:
        SystemExit: there is no such entry, or its keys are not those of an entry.
    """
    path = RECORDS / f"{name}.yaml"
    if not path.is_file():
        sys.exit(f"{name}: no such record; existing records: {', '.join(names())}")
    record: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    if wrong := (REQUIRED - record.keys()) | (record.keys() - REQUIRED - OPTIONAL):
        sys.exit(f"{path}: missing or unknown keys: {', '.join(sorted(wrong))}")
    record.setdefault("unit", "perplexity")
    if record["unit"] not in COLUMNS:
        sys.exit(f"{path}: unit: {record['unit']}: must be one of {', '.join(COLUMNS)}")
    return record


def names() -> list[str]:
    """Return the names of all entries."""
    return sorted(path.stem for path in RECORDS.glob("*.yaml"))


def docs() -> str:
    """Return the page of all entries."""
    records = {name: read_record(name) for name in names()}
    columns = "| track | kind | entry | valid | test | training tokens | tokens/s | version |"
    lines = [HEADER, columns, "|---|---|---|---|---|---|---|---|"]
    for name, record in sorted(records.items(), key=lambda item: (item[1]["track"], item[1]["kind"] == "adaptive")):
        unit = "" if record["unit"] == "perplexity" else f" {record['unit']}"
        scores = {split: f"{score}{unit}" for split, score in record["scores"].items()}
        speed = record["tokens_per_second"]
        counts = " | ".join(f"{count:,}" if count else "not quoted" for count in (record.get("tokens"), speed))
        lines.append(
            f"| {record['track']} | {record['kind']} | `{name}` | {scores.get('valid', '')} | {scores.get('test', '')} "
            f"| {counts} | {record['version']} |"
        )
    for name, record in records.items():
        lines += ["", f"## {name}", "", "```", *commands(record, "outputs/run"), "```", ""]
        gflops = f"{record['gflops']} GFLOP/s" if record["gflops"] else "GFLOP/s not measured in the same run"
        lines.append(f"Machine: {record['machine']}; {gflops}. Tolerance: {record['tolerance']:.0%}.")
        if record.get("notes"):
            lines += ["", str(record["notes"])]
        if record.get("failed"):
            lines += ["", "| tried and dropped | valid | test |", "|---|---|---|"]
            lines += [
                f"| {failed['changes']} | {failed['valid']} | {failed.get('test', '')} |" for failed in record["failed"]
            ]
    return "\n".join(lines) + "\n"


def commands(record: dict[str, Any], folder: str) -> list[str]:
    """Return the command lines of an entry, for readers."""
    lines = [" ".join(["tl-train", *record["overrides"]])]
    members = record.get("members", {})
    lines += [" ".join(["tl-train", *overrides, f"name={name}"]) for name, overrides in members.items()]
    if "evaluate" in record:
        runs = [folder, *(f"outputs/{name}" for name in members)]
        lines.append(" ".join(["tl-eval", *runs, *record["evaluate"], "--split", *record["scores"]]))
    return lines


def gflops(size: int = 1024, seconds: float = 2.0) -> float:
    """Return the float32 GFLOP/s of matrix products on this machine."""
    import torch

    left, right = torch.rand(size, size), torch.rand(size, size)
    left @ right
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        left @ right
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - begin) / 1e9


def machine() -> str:
    """Return the name of the processor and the number of cores that this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{found[0] if found else platform.processor() or platform.machine()}, {cores} cores"


def replay(record: dict[str, Any], folder: Path, further: list[str]) -> dict[str, float]:
    """Train and score an entry; return the score of each split.

    Args:
        record: the entry.
        folder: folder for the run, which must not exist yet.
        further: overrides beside those of the entry, such as `data.path=FOLDER`. The members of a mixture take those of
            the corpus.
    """
    run = folder / "run"
    _train(folder, "run", [*record["overrides"], *further])
    if "evaluate" not in record:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        return {split: float(summary[split][COLUMNS[record["unit"]]]) for split in record["scores"]}
    corpus = [override for override in further if override.startswith("data.")]
    for name, overrides in record.get("members", {}).items():
        _train(folder, name, [*overrides, *corpus])
    runs = [str(run), *(str(folder / name) for name in record.get("members", {}))]
    options = [*record["evaluate"], "--split", *record["scores"], "--to", str(folder / "scores")]
    subprocess.run([sys.executable, "-m", "torch_linguist.cli.eval", *runs, *options], check=True)
    with (folder / "scores" / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == record["scored_model"]]
    return {row["split"]: float(row[COLUMNS[record["unit"]]]) for row in rows}


def _train(folder: Path, name: str, overrides: list[str]) -> None:
    where = [f"output_dir={folder}", f"name={name}"]
    subprocess.run([sys.executable, "-m", "torch_linguist.cli.train", *overrides, *where], check=True)


def verdict(record: dict[str, Any], found: dict[str, float]) -> tuple[bool, list[str]]:
    """Return whether the scores hold, and a line for each split."""
    lines, holds = [], True
    for split, recorded in record["scores"].items():
        limit = recorded * (1 + record["tolerance"])
        kept = found[split] <= limit
        holds = holds and kept
        sign = "holds" if kept else "does not hold"
        digits = 2 if record["unit"] == "perplexity" else 3
        lines.append(f"{split}: {found[split]:.{digits}f}, recorded {recorded}, limit {limit:.{digits}f}: {sign}")
    return holds, lines


def main() -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(description="Replay an entry of the book of records.")
    parser.add_argument("name", nargs="?", help="name of the entry; without one, all entries are listed")
    parser.add_argument("--data-path", help="local copy of the corpus (data.path)")
    parser.add_argument("--folder", type=Path, default=Path("outputs/record"), help="folder for the run")
    parser.add_argument("--equal-tokens", action="store_true", help="train on the recorded tokens, not by the clock")
    parser.add_argument("--write-docs", action="store_true", help="write docs/records.md")
    parser.add_argument("--check-docs", action="store_true", help="check that docs/records.md is up to date")
    arguments = parser.parse_args()
    if arguments.write_docs:
        DOCS.write_text(docs(), encoding="utf-8")
    elif arguments.check_docs:
        if not DOCS.is_file() or DOCS.read_text(encoding="utf-8") != docs():
            sys.exit("docs/records.md is out of date; run python scripts/check_record.py --write-docs")
    elif arguments.name is None:
        for name in names():
            record = read_record(name)
            print(f"{name}: {record['track']}, {record['kind']}: {record['scores']}")
    else:
        record = read_record(arguments.name)
        if arguments.folder.exists():
            sys.exit(f"{arguments.folder}: exists already; name another --folder")
        speed = round(gflops())
        print(f"{machine()}: {speed} GFLOP/s in float32 (recorded: {record['gflops'] or 'not measured'})", flush=True)
        further = [f"data.path={arguments.data_path}"] if arguments.data_path else []
        if arguments.equal_tokens:
            if not record.get("tokens"):
                sys.exit(f"{arguments.name}: has no number of tokens to train on")
            further += ["trainer.max_minutes=null", f"trainer.max_tokens={record['tokens']}"]
        found = replay(record, arguments.folder, further)
        holds, lines = verdict(record, found)
        print("\n".join(lines))
        train = json.loads((arguments.folder / "run" / "summary.json").read_text(encoding="utf-8"))["train"]
        measured = {
            "machine": machine(),
            "gflops": speed,
            "tokens": train["tokens"],
            "tokens_per_second": round(train["tokens_per_second"]),
            "scores": {split: round(score, 4) for split, score in found.items()},
        }
        path = arguments.folder / "measured.yaml"
        path.write_text(yaml.safe_dump(measured, sort_keys=False), encoding="utf-8")
        print(f"written: {path}")
        return 0 if holds else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
