"""Loss of the learning rate that the finder picks, compared with the best one, by model family and corpus.

For each cell, a fine grid of short trainings (a factor of 1.7 apart, extended until the best lies inside) gives the
reference. The shortfall of a pick is its validation loss minus the best of the cell, interpolated linearly between the
trainings on either side; the finder's own pick (suggestion and trials) is trained itself. The test split is not used.
Every row is written when its training ends, and a second start continues.

Usage: python scripts/bench_lr_finder.py --folder FOLDER [--data WIKITEXT2] [--steps 120]
    [--parts truth curves picks]
"""

import argparse
import csv
import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from torch_linguist.data import Corpus, SotuCorpus, TokenizedCorpus, WikiTextCorpus, WordTokenizerTrainer, prepare
from torch_linguist.evaluation.score_settings import ScoreSettings
from torch_linguist.model import GRU, LSTM, RNN, LanguageModel, Transformer
from torch_linguist.optim import WarmupStableDecay
from torch_linguist.pipeline.lr_suggestions import METHODS
from torch_linguist.pipeline.range_test import RangeTest
from torch_linguist.pipeline.short_training import run_trial
from torch_linguist.pipeline.stages.lr_find import LRFind
from torch_linguist.runs.csv_table import Table
from torch_linguist.trainer import TrainerSettings, TrainingContext
from torch_linguist.trainer.device import denormals_flushed
from torch_linguist.trainer.initialization import start_from_counts
from torch_linguist.trainer.randomness import seed_everything

FACTOR = 1.7
CENTER = 6e-3
FIRST = range(-6, 4)
VALID_TOKENS = 6_000
COLUMNS = ("corpus", "family", "kind", "lr", "valid_loss", "seconds")
ENDS = ((1e-4, 1.0, 64), (1e-5, 1.0, 80), (1e-4, 10.0, 80))
"""Pairs of ends, with steps, whose curves are compared; the first is the default."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="gets rows.csv and the curves; goes on with it")
    parser.add_argument("--data", type=Path, help="WikiText-2 as train.txt, valid.txt, test.txt; the hub otherwise")
    parser.add_argument("--steps", type=int, default=120, help="updates of each training")
    parser.add_argument("--families", nargs="+", default=["rnn", "lstm", "gru", "transformer"])
    parser.add_argument("--corpora", nargs="+", default=["sotu", "wikitext2"])
    parser.add_argument(
        "--parts", nargs="+", choices=["truth", "curves", "picks"], default=["truth", "curves", "picks"]
    )
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    # Products of this size gain nothing by threads, and sums that are divided otherwise would not repeat.
    torch.set_num_threads(1)
    rows = Rows(arguments.folder / "rows.csv")
    with denormals_flushed():
        for part in arguments.parts:
            for corpus in arguments.corpora:
                for family in arguments.families:
                    cell = Cell(corpus, family, arguments.steps, arguments.data, arguments.folder, rows)
                    getattr(cell, part)()
                    print(f"{part:<7}{corpus:<10} {family:<12} {cell.told}", flush=True)
    report(rows.frame(), arguments.folder)


class Rows:
    """Load the finished trainings, those of an earlier start included."""

    def __init__(self, path: Path) -> None:
        self.done: dict[tuple[str, str, str, str], dict[str, str]] = {}
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    self.done[self._key(row["corpus"], row["family"], row["kind"], float(row["lr"]))] = row
        self.table = Table(path, COLUMNS, append=True)

    def _key(self, corpus: str, family: str, kind: str, lr: float) -> tuple[str, str, str, str]:
        return corpus, family, kind, f"{lr:.6g}"

    def loss(self, corpus: str, family: str, kind: str, lr: float) -> float | None:
        row = self.done.get(self._key(corpus, family, kind, lr))
        return None if row is None else float(row["valid_loss"])

    def picked(self, corpus: str, family: str) -> float | None:
        """Return the stored pick of the finder, or None."""
        found = [row for key, row in self.done.items() if key[:3] == (corpus, family, "finder")]
        return float(found[0]["lr"]) if found else None

    def add(self, corpus: str, family: str, kind: str, lr: float, loss: float, seconds: float) -> None:
        row = dict(zip(COLUMNS, (corpus, family, kind, lr, loss, seconds), strict=True))
        self.table.add(row)
        self.done[self._key(corpus, family, kind, lr)] = {key: str(value) for key, value in row.items()}

    def frame(self) -> pd.DataFrame:
        frame = pd.DataFrame(list(self.done.values()), columns=list(COLUMNS))
        return frame.astype({"lr": float, "valid_loss": float, "seconds": float})


class Cell:
    """A family on a corpus."""

    def __init__(self, corpus: str, family: str, steps: int, data: Path | None, folder: Path, rows: Rows) -> None:
        self.corpus, self.family, self.steps, self.rows, self.folder = corpus, family, steps, rows, folder
        self.told = ""
        tokens = corpus_of(corpus, data)
        self.context = TrainingContext(
            corpus=tokens,
            make_optimizer=functools.partial(torch.optim.AdamW, betas=(0.9, 0.99)),
            schedule=WarmupStableDecay(),
            settings=TrainerSettings(batch_size=8, sequence_length=32, max_steps=steps, device="cpu", precision="fp32"),
            score=ScoreSettings(),
            seed=1,
        )
        seed_everything(1)
        self.model = model_of(family, tokens.tokenizer.vocab_size)
        self.model.prepare_vocabulary(torch.from_numpy(tokens.token_counts()))
        start_from_counts(self.model, tokens, self.context.settings)

    def measure(self, lr: float) -> float:
        """Return the validation loss of a short training; infinite if it diverges."""
        known = self.rows.loss(self.corpus, self.family, "training", lr)
        if known is None:
            trial = run_trial(self.model, self.context, lr, 0.0, self.steps, VALID_TOKENS)
            known = trial.valid_loss
            self.rows.add(self.corpus, self.family, "training", lr, known, trial.seconds)
        return known

    def truth(self) -> None:
        """Train on a fine grid of learning rates, extended until its best one is inside."""
        losses = {step: self.measure(CENTER * FACTOR**step) for step in FIRST}
        while (best := min(losses, key=losses.__getitem__)) in (min(losses), max(losses)) and len(losses) < 16:
            step = best + (1 if best == max(losses) else -1)
            losses[step] = self.measure(CENTER * FACTOR**step)
        self.told = f"best {CENTER * FACTOR**best:.2g}: {losses[best]:.4f}"

    def curves(self) -> None:
        """Return the suggestions of every method for every pair of ends, from one range test each."""
        for start, end, steps in ENDS:
            kinds = {method: f"{start:g}-{end:g} {method}" for method in METHODS}
            if all(self._has(kind) for kind in kinds.values()):
                continue
            begin = time.perf_counter()
            curve = self.folder / f"curve-{self.corpus}-{self.family}-{start:g}-{end:g}.csv"
            finder = LRFind(start=start, end=end, steps=steps)
            test = finder.range_test(self.model, self.context, curve)
            seconds = time.perf_counter() - begin
            for method, kind in kinds.items():
                lr = test.suggest(method)
                self.rows.add(self.corpus, self.family, kind, math.nan if lr is None else lr, math.nan, seconds)

    def _has(self, kind: str) -> bool:
        return any(key[:3] == (self.corpus, self.family, kind) for key in self.rows.done)

    def picks(self) -> None:
        """Run the whole finder with its defaults on the stored curve."""
        done = self.rows.picked(self.corpus, self.family)
        if done is not None:
            self.told = f"finder {done:.2g}: {self.measure(done):.4f}"
            return
        # The trials are shorter than the training that they choose for, as they are in a real run.
        defaults = LRFind(trial_steps=2 * self.steps // 3, eval_tokens=VALID_TOKENS)
        curve = pd.read_csv(self.folder / f"curve-{self.corpus}-{self.family}-{defaults.start:g}-{defaults.end:g}.csv")
        rates, losses, smoothed = (curve[name].to_numpy() for name in ("lr", "loss", "smoothed"))
        test = RangeTest(rates, losses, smoothed, losses[0], defaults.steps).with_suggestion(defaults.suggestion)
        begin = time.perf_counter()
        folder = self.folder / f"finder-{self.corpus}-{self.family}"
        folder.mkdir(exist_ok=True)
        result = defaults.find(self.model, self.context, folder, test=test)
        self.rows.add(self.corpus, self.family, "finder", result.lr, math.nan, time.perf_counter() - begin)
        self.told = f"finder {result.lr:.2g} after {len(result.trials)} trials: {self.measure(result.lr):.4f}"


@functools.cache
def corpus_of(name: str, data: Path | None) -> TokenizedCorpus:
    source: Corpus = SotuCorpus() if name == "sotu" else WikiTextCorpus(path=None if data is None else str(data))
    return prepare(source, WordTokenizerTrainer(min_frequency=3, max_size=5_000))


def model_of(family: str, vocab_size: int) -> LanguageModel:
    """A small model of the default shape."""
    if family == "transformer":
        return Transformer(vocab_size, embedding_dim=96, num_layers=2, num_heads=4, context_length=32)
    kinds: dict[str, type[LanguageModel]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
    return kinds[family](vocab_size, embedding_dim=64, hidden_size=128, dropout=0.2)


def report(frame: pd.DataFrame, folder: Path) -> None:
    """Print the excess loss of each pick as Markdown; for other ends, interpolate between trainings."""
    defaults = LRFind()
    trained = frame[frame["kind"] == "training"]
    lines: list[Sequence[str]] = []
    for (corpus, family), cell in frame.groupby(["corpus", "family"], sort=False):
        truth = truth_of(trained, str(corpus), str(family))
        if not len(truth):
            continue
        best = truth.iloc[int(truth["valid_loss"].to_numpy().argmin())]
        row = [str(corpus), str(family), f"{best['lr']:.2g}", f"{best['valid_loss']:.4f}"]
        for kind in (*(f"{defaults.start:g}-{defaults.end:g} {method}" for method in METHODS), "finder"):
            found = cell[cell["kind"] == kind]["lr"]
            lr = float(found.iloc[0]) if len(found) else math.nan
            # Beyond the trainings the nearest of them stands in, so that the pick falls short by more than that.
            beyond = ">" if not truth["lr"].min() * 0.99 <= lr <= truth["lr"].max() * 1.01 else ""
            row.append(f"{beyond}{100 * shortfall(lr, truth):.1f}% ({lr:.2g})" if math.isfinite(lr) else "none")
        lines.append(row)
    head = ["corpus", "family", "best lr", "valid loss", *METHODS, "finder"]
    print("\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines)))
    print("\nBy ends and method: mean and largest shortfall, interpolated between trainings")
    for start, end, _ in ENDS:
        for method in METHODS:
            picked = frame[frame["kind"] == f"{start:g}-{end:g} {method}"]
            short = [
                shortfall(lr, truth_of(trained, corpus, family))
                for corpus, family, lr in zip(picked["corpus"], picked["family"], picked["lr"], strict=True)
                if math.isfinite(lr)
            ]
            if short:
                print(f"{start:g} to {end:g}, {method:<8} {100 * np.mean(short):6.1f}% {100 * np.max(short):6.1f}%")


def truth_of(trained: pd.DataFrame, corpus: str, family: str) -> pd.DataFrame:
    """Return the trainings of a cell by ascending learning rate."""
    own = (trained["corpus"] == corpus) & (trained["family"] == family)
    return trained.loc[own].sort_values("lr")


def shortfall(lr: float, truth: pd.DataFrame) -> float:
    """Return the excess of the loss over the best one, as a share of it, linearly interpolated between trainings.

    Args:
        lr: may be nan.
        truth: `lr`, ascending, and `valid_loss` of a cell's trainings.
    """
    losses = truth["valid_loss"].replace(math.inf, 20.0).to_numpy()
    loss = np.interp(math.log(lr), np.log(truth["lr"].to_numpy()), losses)
    return float(loss / losses.min() - 1)


if __name__ == "__main__":
    main()
