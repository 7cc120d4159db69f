"""Small plans of runs, and runs with their output."""

import functools
import io
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from torch_linguist.data import InMemoryCorpus, WordTokenizerTrainer
from torch_linguist.generation.sample_settings import SampleSettings
from torch_linguist.model import LSTM
from torch_linguist.optim import OneCycle
from torch_linguist.pipeline import Plan, run
from torch_linguist.pipeline.stages import Check, ExportStage, FitStage, Grid, LRFind, Overfit, Stage
from torch_linguist.trainer import TrainerSettings

STAGES: dict[str, Stage] = {
    "check": Check(),
    "overfit": Overfit(max_steps=5),
    "lr_find": LRFind(start=1e-3, steps=30, trial_steps=3, eval_tokens=40),
    "grid": Grid(steps=3, eval_tokens=40, weight_decay=[0.0, 0.1], learning_rates=1),
    "fit": FitStage(),
    "export": ExportStage(),
}


def plan_of(folder: Path, corpus: InMemoryCorpus, **options: Any) -> Plan:
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "batch_size": 4,
        "sequence_length": 8,
        "max_steps": 12,
        "eval_every": 6,
        "eval_tokens": 80,
    }
    settings |= {"device": "cpu", "precision": "fp32"} | options.pop("settings", {})
    chosen: dict[str, Any] = {
        "make_model": functools.partial(LSTM, embedding_dim=8, hidden_size=8),
        "make_optimizer": torch.optim.AdamW,
        "schedule": OneCycle(),
        "names": {"model": "lstm", "data": "made", "tokenizer": "word"},
        "config_text": "seed: 1\n",
        "stages": [STAGES[name] for name in options.pop("stages", STAGES)],
        "sample": SampleSettings(tokens=4, prompts=["", "the"]),
    }
    return Plan(
        folder=folder,
        corpus=corpus,
        tokenizer_trainer=WordTokenizerTrainer(min_frequency=1),
        trainer=TrainerSettings(**settings),
        **(chosen | options),
    )


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def run_and_output(plan: Plan) -> tuple[dict[str, Any], str]:
    console = quiet()
    summary = run(plan, console)
    assert isinstance(console.file, io.StringIO)
    return summary, console.file.getvalue()
