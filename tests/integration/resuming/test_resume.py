"""A training that is cut short and taken up again ends bit for bit where an uninterrupted one ends."""

import csv
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_linguist.checkpoint import read_checkpoint, save_checkpoint
from torch_linguist.errors import LinguistError, TrainingError
from torch_linguist.generation import generate
from torch_linguist.model import LanguageModel
from torch_linguist.optim import Cosine, Plateau
from torch_linguist.trainer import Callback, CheckpointSettings, Fit, TrainingContext

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]

FAMILIES = ("rnn", "lstm", "gru", "transformer")
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    **{
        f"{family} {batches}": (family, {"dropout": 0.3}, {"batches": batches, "accumulate": 2, "schedule": Cosine()})
        for family in FAMILIES
        for batches in ("contiguous", "windows")
    },
    **{f"{family} bf16": (family, {"dropout": 0.2}, {"precision": "bf16", "log_every": 3}) for family in FAMILIES},
    "noise": ("lstm", {"output": "adaptive", "cutoffs": [20]}, {"noise": "unigram", "word_dropout": 0.1}),
    "ema": ("gru", {"tied": True, "dropout": 0.2, "embedding_dim": 16}, {"average": "ema", "gradient_clip": None}),
    "asgd": ("rnn", {"dropout": 0.2}, {"average": "asgd", "eval_every": 1, "log_every": 4}),
    "lstm": ("lstm", {"dropout": 0.3}, {"schedule": Cosine()}),
    "gates, penalties and dropout of weights and words": (
        "lstm",
        {
            "mogrifier_rounds": 2,
            "mogrifier_rank": 3,
            "capped_input_gate": True,
            "weight_dropout": 0.3,
            "embedding_dropout": 0.1,
            "activation_penalty": 1.0,
            "temporal_penalty": 1.0,
            "num_softmaxes": 2,
        },
        {"variable_length": True},
    ),
    "a Transformer with every option": (
        "transformer",
        {"query_key_norm": True, "value_embeddings": True, "embedding_skip": True, "activation": "squared_relu"},
        {},
    ),
    "sgd on a plateau": (
        "gru",
        {"tied": True, "dropout": 0.2},
        {
            "schedule": Plateau(shrink=0.5, threshold=0.5),
            "make_optimizer": functools.partial(torch.optim.SGD, momentum=0.9),
        },
    ),
}
CUTS = {case: [6] for case in CASES} | {"lstm": [1, 6, 8, 14], "sgd on a plateau": [1, 7, 14], "asgd": [1, 9, 13]}
STEPS = 14


def sampler(context: TrainingContext) -> Callable[[LanguageModel], list[tuple[str, str]]]:
    return lambda model: [("the", generate(model, context.corpus.tokenizer, "the", max_tokens=3, seed=1)[0])]


def fit(case: str, folder: Path, make_context: ContextBuilder, build_model: ModelBuilder, **options: Any) -> Fit:
    family, model_options, settings = CASES[case]
    context = make_context(**({"max_steps": STEPS, "eval_every": 4, "log_every": 1, "eval_tokens": 60} | settings))
    context = dataclasses.replace(context, checkpoint=CheckpointSettings(every_steps=4))
    model = build_model(family, context.corpus.tokenizer.vocab_size, **model_options)
    folder.mkdir(exist_ok=True)
    return Fit(model, context, 0.02, 0.1, folder, sampler=sampler(context), **options)


def after(count: int) -> Callable[[], bool]:
    calls = iter(range(count))
    return lambda: next(calls, None) is None


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    timed = ("seconds", "tokens_per_second")
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, Mapping):
        assert one.keys() == other.keys()
        for key in one:
            if key not in ("seconds", "overhead_seconds", "training_seconds", "checkpoint_seconds"):
                assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


@pytest.mark.parametrize(("case", "cut"), [(case, cut) for case, cuts in CUTS.items() for cut in cuts])
def test_a_resumed_training_is_the_uninterrupted_one(
    case: str, cut: int, make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    straight = fit(case, tmp_path / "straight", make_context, build_model).run()
    folder = tmp_path / "resumed"
    first = fit(case, folder, make_context, build_model, stop=after(cut - 1)).run()
    assert (first.status, first.steps) == ("interrupted", cut)
    torch.manual_seed(99)
    resumed = fit(case, folder, make_context, build_model, resume=folder / "checkpoints" / "last.pt").run()
    assert resumed.steps == STEPS
    for name in ("best.pt", "last.pt"):
        one, other = (read_checkpoint(tmp_path / run / "checkpoints" / name) for run in ("straight", "resumed"))
        assert_same(one, other)
    assert (resumed.best_loss, resumed.best_step) == (straight.best_loss, straight.best_step)
    assert rows_of(folder) == rows_of(tmp_path / "straight")


class Crash(Callback):
    """Pulls the plug at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def logged(self, scalars: Mapping[str, float], step: int) -> None:
        if step == self.step:
            raise OSError("pulled the plug")


def test_after_a_crash_the_lost_updates_are_done_again(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    fit("lstm", tmp_path / "straight", make_context, build_model).run()
    folder = tmp_path / "resumed"
    with pytest.raises(OSError, match="plug"):
        fit("lstm", folder, make_context, build_model, callbacks=[Crash(11)]).run()
    assert read_checkpoint(folder / "checkpoints" / "last.pt")["progress"]["step"] == 8
    assert rows_of(folder)[-1]["step"] == "11"
    fit("lstm", folder, make_context, build_model, resume=folder / "checkpoints" / "last.pt").run()
    one, other = (read_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("straight", "resumed"))
    assert_same(one, other)
    assert rows_of(folder) == rows_of(tmp_path / "straight")


def test_a_finished_training_stays_as_it_is(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    done = fit("lstm", folder, make_context, build_model).run()
    before = read_checkpoint(folder / "checkpoints" / "last.pt"), rows_of(folder)
    again = fit("lstm", folder, make_context, build_model, resume=folder / "checkpoints" / "last.pt").run()
    assert (again.steps, again.best_loss, again.status) == (done.steps, done.best_loss, "finished")
    assert_same(before[0], read_checkpoint(folder / "checkpoints" / "last.pt"))
    assert rows_of(folder) == before[1]


def test_a_training_that_lost_its_patience_does_not_find_it_again(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    def patient(folder: Path, patience: int, **options: Any) -> Fit:
        context = make_context(max_steps=40, eval_every=2, eval_tokens=40, patience=patience)
        folder.mkdir(exist_ok=True)
        model = build_model("lstm", context.corpus.tokenizer.vocab_size)
        return Fit(model, context, 1e-30, 0.0, folder, **options)  # So small a rate gains nothing.

    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert patient(tmp_path / "run", 2).run().steps == 6
    again = patient(tmp_path / "run", 2, resume=last).run()
    assert (again.steps, again.status) == (6, "finished")
    assert "2 validations" in again.reason
    assert patient(tmp_path / "run", 4, resume=last).run().steps == 10


def test_a_longer_limit_goes_on(make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path) -> None:
    context = make_context(max_steps=4)
    longer = make_context(max_steps=7)
    vocab_size = context.corpus.tokenizer.vocab_size
    Fit(build_model("gru", vocab_size), context, 0.01, 0.0, tmp_path).run()
    resumed = Fit(
        build_model("gru", vocab_size), longer, 0.01, 0.0, tmp_path, resume=tmp_path / "checkpoints" / "last.pt"
    ).run()
    assert (resumed.steps, resumed.tokens) == (7, 7 * 32)


def test_what_cannot_be_resumed_is_named(
    make_context: ContextBuilder, build_model: ModelBuilder, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    fit("lstm", folder, make_context, build_model).run()
    checkpoints = folder / "checkpoints"
    with pytest.raises(TrainingError, match=r"best\.pt: .*resume from last\.pt"):
        fit("lstm", folder, make_context, build_model, resume=checkpoints / "best.pt")
    with pytest.raises(TrainingError, match="no such checkpoint"):
        fit("lstm", folder, make_context, build_model, resume=checkpoints / "no.pt")
    with pytest.raises(LinguistError, match=r"last\.pt") as caught:  # Of another model,
        fit("transformer windows", folder, make_context, build_model, resume=checkpoints / "last.pt")
    assert "\n" not in str(caught.value)
    context = make_context(batch_size=5)  # or with other batches.
    model = build_model("lstm", context.corpus.tokenizer.vocab_size, dropout=0.3)
    with pytest.raises(LinguistError, match="batch_size=4"):
        Fit(model, context, 0.02, 0.1, folder, resume=checkpoints / "last.pt")
    content = read_checkpoint(checkpoints / "last.pt")
    save_checkpoint(checkpoints / "last.pt", model, content["progress"] | {"optimizer": {}})
    with pytest.raises(LinguistError, match=r"last\.pt"):
        fit("lstm", folder, make_context, build_model, resume=checkpoints / "last.pt")
    # A refusal leaves the curves alone.
    assert len(rows_of(folder)) > 4
