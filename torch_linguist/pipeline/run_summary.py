"""What is said of a run: its header, its training, its artifacts."""

from pathlib import Path
from typing import Any

import torch

from torch_linguist.data import TokenizedCorpus
from torch_linguist.model import LanguageModel
from torch_linguist.pipeline.plan import Plan
from torch_linguist.trainer import FitResult, TrainerSettings
from torch_linguist.trainer.device import peak_memory_mib

ARTIFACTS = {
    "config": "config.yaml",
    "tokenizer": "tokenizer.json",
    "check": "check.json",
    "overfit": "overfit.csv",
    "overfit_plot": "overfit.png",
    "lr_finder": "lr_finder.csv",
    "lr_finder_plot": "lr_finder.png",
    "lr_trials": "lr_trials.csv",
    "grid": "grid.csv",
    "grid_plot": "grid.png",
    "metrics": "metrics.csv",
    "pace": "pace.csv",
    "curves": "curves.png",
    "profile": "profile.csv",
    "profile_plot": "profile.png",
    "trace": "profile/trace.json",
    "tensorboard": "tensorboard",
    "best": "checkpoints/best.pt",
    "last": "checkpoints/last.pt",
    "jit": "model.jit",
}


def artifacts(folder: Path) -> dict[str, str]:
    """Relative paths of what a run has made, by name."""
    return {name: path for name, path in ARTIFACTS.items() if (folder / path).exists()}


def training_facts(result: FitResult, device: str) -> dict[str, Any]:
    """What `summary.json` says of the long training."""
    return {
        "tokens": result.tokens,
        "steps": result.steps,
        "epochs": result.epochs,
        "seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second,
        "checkpoint_seconds": result.checkpoint_seconds,
        "peak_memory_mib": peak_memory_mib(torch.device(device)),
        "best_step": result.best_step,
        "reason": result.reason,
    }


def counting_facts(tokens: int, seconds: float) -> dict[str, Any]:
    """What `summary.json` says of a training that is one pass of counting."""
    return {
        "tokens": tokens,
        "epochs": 1.0,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "peak_memory_mib": peak_memory_mib(torch.device("cpu")),
    }


def header_facts(
    plan: Plan, corpus: TokenizedCorpus, model: LanguageModel, settings: TrainerSettings
) -> dict[str, dict[str, str | int | float]]:
    """What the header of a run shows, by subject."""
    limits = {
        name: getattr(settings, name)
        for name in ("max_epochs", "max_steps", "max_tokens", "max_minutes")
        if getattr(settings, name) is not None
    }
    return {
        "corpus": {
            "name": plan.names.get("data", corpus.name),
            "documents": corpus.num_documents,
            **{f"{split} tokens": len(corpus.streams[split]) for split in ("train", "valid", "test")},
        },
        "tokenizer": {
            "name": plan.names.get("tokenizer", type(plan.tokenizer_trainer).__name__),
            "types": corpus.tokenizer.vocab_size,
            "out of vocabulary": f"{corpus.valid.oov_rate:.2%} of valid, {corpus.test.oov_rate:.2%} of test",
        },
        "model": {
            "name": plan.names.get("model", type(model).__name__),
            "parameters": model.num_parameters(),
        },
        "training": {
            "batch": f"{settings.batch_size} x {settings.sequence_length} tokens",
            **limits,
            "device": f"{settings.device}, {settings.precision}, {torch.get_num_threads()} threads",
            "seed": plan.seed,
        },
        "run folder": {"": str(plan.folder)},
    }
