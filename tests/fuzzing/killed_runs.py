"""Runs that are killed at seeded points and resumed; each must end as the run that was never killed.

    python killed_runs.py FOLDER POINTS SEED [KILLS]

The parent imports everything once and forks: a child works and is killed by SIGKILL at the n-th event, another child
continues. Events are updates, rows, renames, the middle of a checkpoint's write, and the like, in every stage. With
KILLS, further runs are killed again and again, at random events or random moments, until there are so many kills.
"""

import csv
import functools
import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from conftest import made_text
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from torch_linguist.checkpoint import read_checkpoint
from torch_linguist.data import InMemoryCorpus, WordTokenizerTrainer
from torch_linguist.evaluation.score_settings import ScoreSettings
from torch_linguist.generation.sample_settings import SampleSettings
from torch_linguist.model import LSTM, LanguageModel
from torch_linguist.optim import OneCycle
from torch_linguist.pipeline import Plan, run
from torch_linguist.pipeline.progress import Progress
from torch_linguist.pipeline.run_context import RunContext
from torch_linguist.pipeline.stages import Check, ExportStage, FitStage, Grid, LRFind, Overfit, Stage
from torch_linguist.pipeline.stages import export as export_module
from torch_linguist.pipeline.stages import fit as fit_module
from torch_linguist.report import plots
from torch_linguist.report.loggers.tensorboard import event_folder
from torch_linguist.runs.csv_table import Table
from torch_linguist.runs.files import whole_file
from torch_linguist.trainer import (
    CheckpointSettings,
    TrainerSettings,
)
from torch_linguist.trainer.loop import Loop

TIMED = {"seconds", "training_seconds", "overhead_seconds", "checkpoint_seconds", "tokens_per_second"}


class Events:
    """Counts what happens, and pulls the plug at one of them.

    Args:
        deadly: stage and number, within the stage, of the event at which the process is killed; None for never. How
            many checkpoints `fit` writes depends on the time, so that numbers across stages would not repeat. The
            stage `any` counts across stages.
    """

    def __init__(self, deadly: tuple[str, int] | None) -> None:
        self.deadly, self.stage = deadly, "prepare"
        self.seen: list[tuple[str, str]] = []

    def happened(self, name: str) -> None:
        self.seen.append((self.stage, name))
        if self.deadly == ("any", len(self.seen) - 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.deadly == (self.stage, sum(stage == self.stage for stage, _ in self.seen) - 1):
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str) -> None:
        """An event before and one after each call."""
        inner: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(inner)
        def wrapper(*arguments: Any, **options: Any) -> Any:
            self.happened(f"before {name}")
            result = inner(*arguments, **options)
            self.happened(f"after {name}")
            return result

        setattr(owner, name, wrapper)

    def watch(self) -> None:
        """Puts the hooks in place."""
        for owner, name in ((Loop, "update"), (Path, "replace"), (Table, "add"), (Progress, "begin")):
            self.around(owner, name)
        self.around(fit_module, "final_comparison")
        self.around(export_module, "export_jit")
        save, run_stage = torch.save, Progress.run

        def half_saved(content: Any, file: Any) -> None:
            save(content, file)
            if hasattr(file, "truncate"):
                self.happened("middle of a checkpoint")

        def in_stage(progress: Progress, stage: Stage, context: RunContext) -> Any:
            self.stage = stage.name
            return run_stage(progress, stage, context)

        setattr(torch, "save", half_saved)  # noqa: B010 - of another signature
        setattr(Progress, "run", in_stage)  # noqa: B010


def plan_of(folder: Path, corpus: InMemoryCorpus, resume: bool) -> Plan:
    return Plan(
        folder=folder,
        corpus=corpus,
        tokenizer_trainer=WordTokenizerTrainer(min_frequency=1),
        make_model=functools.partial(LSTM, embedding_dim=8, hidden_size=8, dropout=0.2, output="full"),
        make_optimizer=torch.optim.AdamW,
        schedule=OneCycle(),
        trainer=TrainerSettings(
            batch_size=4,
            sequence_length=8,
            max_steps=14,
            eval_every=4,
            eval_tokens=60,
            log_every=3,
            device="cpu",
            precision="fp32",
            average="ema",
            sample_every=0,
        ),
        checkpoint=CheckpointSettings(every_steps=5),
        stages=[
            Check(),
            Overfit(max_steps=4),
            LRFind(start=1e-3, steps=20, trial_steps=2, eval_tokens=40),
            Grid(steps=2, eval_tokens=40, weight_decay=[0.0, 0.1], learning_rates=1),
            FitStage(),
            ExportStage(),
        ],
        score=ScoreSettings(baseline_order=0),
        sample=SampleSettings(tokens=2, prompts=["the"]),
        names={"model": "lstm", "data": "made", "tokenizer": "word"},
        config_text="seed: 1\n",
        resume=resume,
    )


def quick_export(model: LanguageModel, tokenizer: Any, path: Path, settings: Any = None) -> Any:
    """In the place of `export_jit`, whose compiler takes longer than all the rest of a run."""
    with whole_file(path) as temporary:
        temporary.write_bytes(b"exported")
    return SimpleNamespace(path=path, mebibytes=0.0, difference=0.0)


def in_child(work: Callable[[], None]) -> int:
    """Carries out work in a fork; its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def carry_out(folder: Path, corpus: InMemoryCorpus, deadly: tuple[str, int] | None, moment: float = 0.0) -> None:
    """Work on a run until its end, or until it is killed at an event or after some seconds."""
    folder.mkdir(exist_ok=True)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, moment)
    events = Events(deadly)
    with (folder.parent / "console.txt").open("a") as console:
        if deadly is not None or folder.name == "straight":
            events.watch()
        run(plan_of(folder, corpus, (folder / "progress.json").is_file()), Console(file=console, width=100))
    if folder.name == "straight":
        (folder.parent / "events.json").write_text(json.dumps(events.seen))


def choose(events: list[tuple[str, str]], points: int, seed: int) -> list[int]:
    """So many events, of every stage, and some in the middle of a checkpoint."""
    source = random.Random(seed)
    groups: dict[str, list[int]] = {}
    for index, (stage, name) in enumerate(events):
        groups.setdefault("checkpoint" if name == "middle of a checkpoint" else stage, []).append(index)
    assert groups.keys() >= {"prepare", "check", "overfit", "lr_find", "grid", "fit", "export", "checkpoint"}, groups
    chosen = {source.choice(group) for group in groups.values()}
    while len(chosen) < points:
        chosen.add(source.choice(groups[source.choice(["fit", "fit", "checkpoint", "grid", *groups])]))
    return sorted(chosen)


def plain(value: Any) -> Any:
    """A content without times, comparable bit for bit."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), value.tolist())
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items() if key not in TIMED}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key not in TIMED} for row in csv.DictReader(file)]


def outcome(folder: Path) -> dict[str, Any]:
    """All of a run that must not depend on whether it was killed."""
    found: dict[str, Any] = {
        name: plain(read_checkpoint(folder / "checkpoints" / name)) for name in ("best.pt", "last.pt")
    }
    tables = ("metrics.csv", "overfit.csv", "lr_finder.csv", "lr_trials.csv", "grid.csv")
    # A finder that suggests nothing runs no trials.
    found |= {name: rows(folder / name) for name in tables if (folder / name).is_file()}
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    kept = ("status", "lr", "weight_decay", "valid", "test")
    found["summary"] = {key: summary[key] for key in kept} | {"stages": list(summary["stages"])}
    events = EventAccumulator(str(event_folder(folder)), size_guidance={"scalars": 0})
    events.Reload()
    for tag in events.Tags()["scalars"]:
        if "per_second" not in tag:
            found[tag] = [(event.step, event.value) for event in events.Scalars(tag)]
    return found


def killed_again_and_again(
    folder: Path, corpus: InMemoryCorpus, expected: dict[str, Any], kills: int, seed: int
) -> int:
    """Kill runs until there are enough kills; return the number of runs that end differently or fail."""
    done = failures = chain = 0
    while done < kills:
        chain, killed = chain + 1, folder / f"chain-{chain}"
        source, own = random.Random(f"{seed} {chain}"), 0
        status = -1
        while status != 0:
            # The later the kill, the fewer of them: most runs are killed some ten times.
            deadly = ("any", source.randrange(source.choice([4, 16, 64]))) if source.random() < 0.95 else None
            moment = source.random() if deadly is None and source.random() < 0.8 else 0.0
            work = functools.partial(carry_out, killed, corpus, deadly, moment)
            status = in_child(work)
            if not os.WIFSIGNALED(status):
                break
            own += 1
        found = outcome(killed) if status == 0 else {}
        differing = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
        failures += bool(differing)
        done += own
        verdict = f"differs in {sorted(differing)}" if differing else "equal"
        sys.stdout.write(f"chain {chain}: {own} kills, {done} in all: {verdict}\n")
        sys.stdout.flush()
        if not differing:
            shutil.rmtree(killed)
    return failures


def main(folder: Path, points: int, seed: int, kills: int = 0) -> int:
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # The first one imports a compiler; forks have it then.
    os.environ["TORCH_LINGUIST_CACHE"] = str(folder / "cache")
    for name in [name for name in vars(plots) if name.startswith("plot_")]:
        setattr(plots, name, lambda *arguments: None)
    setattr(export_module, "export_jit", quick_export)  # noqa: B010
    texts = {"train": [made_text(100, 1)], "valid": [made_text(20, 2)], "test": [made_text(20, 3)]}
    corpus = InMemoryCorpus(texts, name="made", tokenized=True)
    assert in_child(lambda: carry_out(folder / "straight", corpus, None)) == 0
    events = [tuple(event) for event in json.loads((folder / "events.json").read_text())]
    expected = outcome(folder / "straight")
    failures = 0
    for deadly in choose(events, points, seed):
        place, killed = f"{events[deadly][0]}: {events[deadly][1]}", folder / f"killed-{deadly}"
        stage = events[deadly][0]
        number = sum(one[0] == stage for one in events[:deadly])
        # With the token cache of an earlier run, some events of the preparation would not happen.
        shutil.rmtree(folder / "cache", ignore_errors=True)
        status = in_child(lambda killed=killed, at=(stage, number): carry_out(killed, corpus, at))  # type: ignore[misc]
        assert os.WIFSIGNALED(status), f"{place}: was not killed"
        assert os.WTERMSIG(status) == signal.SIGKILL
        status = in_child(lambda killed=killed: carry_out(killed, corpus, None))  # type: ignore[misc]
        found = outcome(killed) if status == 0 else {}
        differing = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
        failures += bool(differing)
        verdict = f"differs in {sorted(differing)}" if differing else "equal"
        sys.stdout.write(f"{deadly:4d} {place}: {verdict}\n")
    return failures + killed_again_and_again(folder, corpus, expected, kills, seed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
