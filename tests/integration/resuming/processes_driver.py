"""Small trainings that test_processes.py carries out with one process and, by torchrun, with two.

torchrun --nproc-per-node=2 tests/integration/resuming/processes_driver.py FOLDER
torchrun --nproc-per-node=2 tests/integration/resuming/processes_driver.py FOLDER killed    # dies, to be continued
"""

import gc
import json
import os
import random
import sys
import tempfile
import weakref
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW

from torch_linguist.checkpoint.storage import write_checkpoint
from torch_linguist.data import InMemoryCorpus, WordTokenizerTrainer, prepare
from torch_linguist.distributed import processes
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.score_settings import ScoreSettings
from torch_linguist.model import GRU, LSTM, RNN, Transformer
from torch_linguist.optim import Cosine, LazyAdamW
from torch_linguist.pipeline.short_training import run_trial
from torch_linguist.trainer import Callback, CheckpointSettings, Fit, TrainerSettings, TrainingContext
from torch_linguist.trainer.callbacks import checkpointing

STEPS = 12
RECURRENT = {"embedding_dim": 16, "hidden_size": 16, "num_layers": 1, "dropout": 0.0}
ADAPTIVE = {"output": "adaptive", "cutoffs": [8, 40]}
CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "rnn": (RNN, RECURRENT | {"output": "full"}, {}),
    "lstm": (LSTM, RECURRENT | ADAPTIVE, {"accumulate": 2}),
    "gru on windows": (GRU, RECURRENT | {"output": "full", "tied": True}, {"batches": "windows", "batch_size": 5}),
    "transformer": (
        Transformer,
        {"embedding_dim": 16, "num_layers": 1, "num_heads": 2, "context_length": 8, "dropout": 0.0} | ADAPTIVE,
        # Of 700 windows the last batch of a pass holds one, fewer than there are processes.
        {"batch_size": 233, "sequence_length": 8, "gradient_clip": 0.2},
    ),
}
"""Class, arguments and settings; some tail of the adaptive softmax goes without a word in most batches."""

LONG_STEPS = 200
AVERAGED = {"accumulate": 2, "average": "ema", "gradient_clip": 0.3}
LAZY = {"output": "sampled", "cutoffs": [4], "tied": True}
HEADS = {"embedding_dim": 16, "num_layers": 1, "num_heads": 2, "context_length": 8, "dropout": 0.0}
UNTIED = {"tied": False}
LONG: dict[str, tuple[Any, dict[str, Any], dict[str, Any], Any]] = {
    "rnn sampled": (RNN, RECURRENT | LAZY, AVERAGED, LazyAdamW),
    "lstm sampled": (LSTM, RECURRENT | LAZY | UNTIED, {}, LazyAdamW),
    "gru sampled": (GRU, RECURRENT | LAZY, {}, LazyAdamW),
    "transformer sampled": (Transformer, HEADS | LAZY, AVERAGED, LazyAdamW),
    "rnn full": (RNN, RECURRENT | {"output": "full"} | UNTIED, {}, LazyAdamW),
    "lstm adaptive": (LSTM, RECURRENT | ADAPTIVE, AVERAGED, AdamW),
    "gru full": (GRU, RECURRENT | {"output": "full"}, {}, AdamW),
    "transformer adaptive": (Transformer, HEADS | ADAPTIVE, {}, AdamW),
    "transformer full": (Transformer, HEADS | {"output": "full"}, AVERAGED, LazyAdamW),
}
"""Class, arguments, settings and optimizer of trainings whose losses must equal those of one process."""

DOUBLE = ("transformer full",)
"""Those in float64. Here an embedding passes near zero, and the norm after it magnifies the last digits: in float32,
changing one of them in one weight changes the losses of one process by 2e-4 nats, as a second process does."""

SHARDED = ("lstm adaptive", "gru full", "transformer adaptive")
"""Those that are trained with shards too; LazyAdamW is another optimizer there, because all gradients are dense."""


def make_corpus(cache: Path) -> Any:
    def text(lines: int, seed: int) -> str:
        source = random.Random(seed)
        words = source.choices(
            [f"w{rank}" for rank in range(61)], [1 / (1 + rank) ** 1.5 for rank in range(61)], k=7 * lines
        )
        return "\n".join(" ".join(words[7 * line : 7 * line + 6]) for line in range(lines)) + "\n"

    corpus = InMemoryCorpus({"train": [text(800, 1)], "valid": [text(60, 2)], "test": [text(40, 3)]}, tokenized=True)
    return prepare(corpus, WordTokenizerTrainer(min_frequency=2), cache)


def make(case: str, cache: Path, **changes: Any) -> tuple[Any, TrainingContext]:
    kind, arguments, own = CASES[case]
    corpus = make_corpus(cache)
    settings: dict[str, Any] = {
        "batch_size": 4,
        "sequence_length": 8,
        "device": "cpu",
        "precision": "fp32",
        "eval_every": 6,
    }
    settings |= {"max_steps": STEPS, "log_every": 1, "sample_every": 0} | own | changes
    context = TrainingContext(
        corpus=corpus,
        make_optimizer=torch.optim.AdamW,
        schedule=Cosine(),
        settings=TrainerSettings(**settings),
        score=ScoreSettings(stride=3),
        seed=3,
        checkpoint=CheckpointSettings(every_steps=4),
    )
    torch.manual_seed(7)
    return kind(corpus.tokenizer.vocab_size, **arguments), context


def fit(
    case: str, folder: Path, cache: Path, resume: Path | None = None, updates: int = STEPS, shard: bool = False
) -> None:
    """Trains for some updates in a folder of each process's own; the first one's is the one that counts."""
    model, context = make(case, cache, shard=shard)
    left = iter(range(updates - 1))
    own = folder if processes.is_main_process() else folder.with_name(f"{folder.name}.{processes.rank()}")
    own.mkdir(parents=True, exist_ok=True)
    Fit(model, context, 0.02, 0.1, own, stop=lambda: next(left, None) is None, resume=resume).run()


def fit_killed(folder: Path, cache: Path) -> None:
    """Trains with shards until all of the second state is written except the file that commits it, then dies."""
    write, states = write_checkpoint, iter(range(1))

    def dying(path: Path, content: dict[str, Any], previous: Any = ()) -> None:
        if path.name == checkpointing.LAST and next(states, None) is None:
            processes.barrier()
            os._exit(9)
        write(path, content, previous)

    vars(checkpointing)["write_checkpoint"] = dying
    fit("rnn", folder, cache, shard=True)


class Losses(Callback):
    """Collects the losses of all updates."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_update(self, training: Fit) -> None:
        assert training.state.update is not None
        self.losses.append(float(training.state.update.loss))


def fit_long(case: str, folder: Path, cache: Path, **changes: Any) -> None:
    """Trains, and writes the losses and the validation loss at the end to a file."""
    kind, arguments, own, optimizer = LONG[case]
    settings: dict[str, Any] = {"batch_size": 4, "sequence_length": 8, "device": "cpu", "precision": "fp32"}
    settings |= {"max_steps": LONG_STEPS, "eval_every": LONG_STEPS, "eval_tokens": 100, "sample_every": 0}
    context = TrainingContext(
        corpus=make_corpus(cache),
        make_optimizer=optimizer,
        schedule=Cosine(),
        settings=TrainerSettings(**settings | own | changes),
        score=ScoreSettings(stride=3),
        seed=3,
    )
    torch.manual_seed(7)
    model = kind(context.corpus.tokenizer.vocab_size, **arguments)
    model.prepare_vocabulary(torch.from_numpy(context.corpus.token_counts()))
    if case in DOUBLE:
        model.double()
    seen = Losses()
    with tempfile.TemporaryDirectory() as temporary:
        result = Fit(model, context, 3e-3, 0.1, Path(temporary), [seen]).run()
    if processes.is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{case}.json").write_text(json.dumps([*seen.losses, result.best_loss]))


def leave_a_model_free(cache: Path) -> str:
    """Trains a model, closes the loop, and tells whether the model can be trained by itself and is freed."""
    model, context = make("gru on windows", cache)
    with closing(context.prepare_training(model, 0.01, 0.0)) as loop:
        loop.update()
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    if processes.is_main_process():  # Alone: a hook that was left would wait for the other process.
        for _ in range(2):
            model.nll(tokens, tokens, model.initial_state(1))[0].sum().backward()
    reference = weakref.ref(model)
    del model, loop
    gc.collect()
    return "freed and trainable" if reference() is None else "not freed"


def main(folder: Path) -> None:
    cache = folder / "cache"
    with processes.process_group():
        for case in CASES:
            fit(case, folder / "two" / case, cache)
        fit("rnn", folder / "went on with two", cache, resume=folder / "half" / "checkpoints" / "last.pt")
        fit("rnn", folder / "half of two", cache, updates=6)
        fit("rnn", folder / "went on with shards", cache, folder / "half" / "checkpoints" / "last.pt", shard=True)
        fit("rnn", folder / "half of shards", cache, updates=6, shard=True)
        fit("rnn", folder / "shards", cache, shard=True)
        for part in ("half of shards", "killed"):
            last = folder / part / "checkpoints" / "last.pt"
            fit("rnn", folder / f"{part}, went on", cache, last, shard=True)
        for case in LONG:
            fit_long(case, folder / "two", cache)
        for case in SHARDED:
            fit_long(case, folder / "sharded", cache, shard=True, average=None)
        fit_long("gru sampled", folder / "compressed", cache, gradient_compression="bf16")
        (folder / f"free-{processes.rank()}.txt").write_text(leave_a_model_free(cache))
        model, context = make("lstm", cache)
        trial = run_trial(model, context, 0.01, 0.0, 5, 100)
        told = processes.broadcast_object(lambda: [processes.rank(), trial.valid_loss])
        assert told == [0, trial.valid_loss], (told, trial)
        try:
            setup_small = make("rnn", cache, batch_size=1)
            setup_small[1].prepare_training(setup_small[0], 0.1, 0.0)
        except LinguistError as error:
            (folder / f"refused-{processes.rank()}.txt").write_text(str(error))


if __name__ == "__main__":
    if sys.argv[2:] == ["killed"]:
        with processes.process_group():
            fit_killed(Path(sys.argv[1], "killed"), Path(sys.argv[1], "cache"))
    main(Path(sys.argv[1]))
