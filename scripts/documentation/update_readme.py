"""Write the results in README.md from the record of a run.

    python scripts/documentation/update_readme.py outputs/default      # store a run's record, then rewrite the README
    python scripts/documentation/update_readme.py                      # rewrite the README from the stored record

The record, `docs/records/default-run.json`, holds the scores of the run's `summary.json` and what the model generates.
Pictures in `docs/images/` are shown where they exist.
"""

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "docs" / "records" / "default-run.json"
README = ROOT / "README.md"
BEGIN = "<!-- results: begin, written by scripts/documentation/update_readme.py -->\n"
END = "<!-- results: end -->\n"
TERMINAL = (
    "docs/images/default-run.svg",
    "Terminal output of tl-train: six steps, a table of validations, final scores",
)
PAGE = ("docs/images/page.png", "A page written by tl-analyze")
KEPT = ("model", "data", "tokenizer", "vocab_size", "parameters", "seed", "lr", "weight_decay", "device", "precision")


def record_of(folder: Path, prompts: list[str]) -> dict[str, Any]:
    """Return the record of a finished run: its scores, and a continuation of each prompt.

    Args:
        folder: run folder.
        prompts: texts to continue.
    """
    from torch_linguist import generate, load_run

    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    run = load_run(folder)
    continuations = [
        generate(run.model, run.tokenizer, prompt, max_tokens=40, temperature=0.8, top_k=50, seed=1)[0]
        for prompt in prompts
    ]
    return {
        **{key: summary[key] for key in KEPT},
        "machine": platform.machine(),
        "versions": summary["versions"],
        "seconds": sum(stage["seconds"] for stage in summary["stages"].values()),
        "scores": {
            summary["model"]: {split: summary[split] for split in ("valid", "test")},
            **summary["baselines"],
            **({"mixture with the n-gram": summary["mixture"]} if summary.get("mixture") else {}),
        },
        "continuations": continuations,
    }


def score_table(record: dict[str, Any]) -> str:
    """Return the scores of a record as a Markdown table, best test perplexity first."""
    rows = sorted(record["scores"].items(), key=lambda item: float(item[1]["test"]["perplexity"]))
    lines = ["| model | valid perplexity | test perplexity | test bits per byte |", "|---|---|---|---|"]
    for name, scores in rows:
        valid, test = scores["valid"], scores["test"]
        lines.append(f"| {name} | {valid['perplexity']:.1f} | {test['perplexity']:.1f} | {test['bits_per_byte']:.3f} |")
    return "\n".join(lines) + "\n"


def results_block(record: dict[str, Any] | None) -> str:
    """Return the section of the README between the two markers.

    Args:
        record: from `record_of`; None where no run has been recorded.
    """
    parts = [f"![{text}]({path})\n" for path, text in (TERMINAL,) if (ROOT / path).is_file()]
    if record is not None:
        minutes, seconds = divmod(round(record["seconds"]), 60)
        versions = record["versions"]
        parts.append(
            f"The stages of the default run (seed {record['seed']}, two cores, torch {versions['torch']}) took "
            f"{minutes} min {seconds} s and end with these scores:\n"
        )
        parts.append(score_table(record))
        quoted = "\n>\n".join(f"> {' '.join(text.split())}" for text in record["continuations"])
        parts.append(f"It continues “The” and “We” like this:\n\n{quoted}\n")
    parts += [f"![{text}]({path})\n" for path, text in (PAGE,) if (ROOT / path).is_file()]
    return "\n".join(parts)


def updated(readme: str, record: dict[str, Any] | None) -> str:
    """Return the README with the results of a record."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + results_block(record) + END + after


def stored_record() -> dict[str, Any] | None:
    """Return the stored record, or None."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else None


def main(arguments: list[str] | None = None) -> int:
    """Store a record if a run is given, and rewrite the README."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", help="run folder to record (default: use the stored record)")
    options = parser.parse_args(arguments)
    if options.run is not None:
        RECORD.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record_of(options.run, ["The", "We"]), indent=2, ensure_ascii=False) + "\n"
        RECORD.write_text(text, encoding="utf-8")
    README.write_text(updated(README.read_text(encoding="utf-8"), stored_record()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
