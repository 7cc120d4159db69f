"""Parts of a run's summary and header: its training, its artifacts, its configuration in short."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from torch_linguist.data import TokenizedCorpus
from torch_linguist.model import LanguageModel
from torch_linguist.pipeline.plan import Plan
from torch_linguist.pipeline.stages import Stage, built_in_stages
from torch_linguist.trainer import FitResult, TrainerSettings
from torch_linguist.trainer.device import peak_memory_mib

RUN_ARTIFACTS = {"config": "config.yaml", "tokenizer": "tokenizer.json"}
"""Files of every run, beside those that its stages leave."""


def artifacts(folder: Path, stages: Sequence[Stage] = ()) -> dict[str, str]:
    """Return the relative paths of the files that a run has left, by name.

    Args:
        folder: run folder.
        stages: stages of the run; the files of built-in stages count even if they are not among them.
    """
    known = dict(RUN_ARTIFACTS)
    for stage in (*(kind() for kind in built_in_stages()), *stages):
        known |= stage.artifacts
    return {name: path for name, path in known.items() if (folder / path).exists()}


def training_facts(result: FitResult, device: str) -> dict[str, Any]:
    """Return the entry `train` of `summary.json` for a long training."""
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
    """Return the entry `train` of `summary.json` for one pass of counting."""
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
    """Return the facts in the header of a run, by subject."""
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
        **({"source": dict(plan.corpus.sources())} if plan.corpus.sources() else {}),
        "tokenizer": {
            "name": plan.names.get("tokenizer", type(plan.tokenizer_trainer).__name__),
            **({"words end at": corpus.tokenizer.word_boundaries} if corpus.tokenizer.word_boundaries else {}),
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
