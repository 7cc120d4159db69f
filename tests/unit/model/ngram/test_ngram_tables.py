"""Tables from a stranger's file are checked before use."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_linguist.checkpoint import load_model, save_checkpoint
from torch_linguist.errors import DataError, LinguistError
from torch_linguist.model.ngram import NGramModel

Tables = dict[str, Tensor]


def tables(bits: int | None, smoothing: str = "kneser_ney") -> tuple[NGramModel, Tables]:
    """A new model, and the tables of a fitted one."""
    ids = np.random.default_rng(1).zipf(1.4, 4000) % 30
    model = NGramModel(30, 3, quantize_bits=bits, smoothing=smoothing)
    model.fit_counts(ids, eos_id=0)
    return NGramModel(**model.arguments), {name: tensor.clone() for name, tensor in model.state_dict().items()}


def put(name: str, place: int, value: float) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        tables[name][place] = value

    return change


def swap(name: str) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        tables[name][[3, 4]] = tables[name][[4, 3]]

    return change


def cut(name: str) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        tables[name] = tables[name][:-1].clone()

    return change


def generous(name: str) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        tables[name][:-1] += 2.0

    return change


def certain(*names: str) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        for name in names:
            tables[name][:] = 0.0

    return change


EXACT = [
    (swap("levels.0.keys"), "not sorted"),
    (put("levels.0.keys", 0, -5), "not sorted"),
    (put("levels.1.keys", -2, 2**60), "no context"),
    (put("levels.0.keys", 0, 31), "not sorted|outside the vocabulary"),
    (put("levels.0.keys", -1, 5), "last entries|not sorted"),
    (put("levels.0.log_prob", 2, 0.1), "from 0 to 1"),
    (put("levels.0.log_prob", 2, float("nan")), "from 0 to 1"),
    (put("levels.1.log_backoff", 2, float("inf")), "not finite"),
    (put("levels.1.log_backoff", -1, 1.0), "last entries"),
    (certain("levels.0.log_prob"), "more than 1"),
    (generous("levels.0.log_backoff"), "more than 1"),
    (generous("levels.1.log_backoff"), "more than 1"),
    (certain("unigrams"), "more than 1"),
    (put("unigrams", 0, float("nan")), "from 0 to 1"),
    (cut("levels.0.log_prob"), "shapes"),
    (cut("levels.1.log_backoff"), "shapes"),
    (cut("unigrams"), "shapes|size mismatch"),
]
QUANTIZED = [
    (swap("levels.1.low_words"), "not sorted"),
    (put("levels.0.low_words", 5, 31), "not sorted|outside the vocabulary"),
    (put("levels.0.low_offsets", 3, 255), "offsets are not sorted"),
    (put("levels.0.rises", 0, 1000), "offsets are not sorted"),
    (put("levels.0.rises", 0, -1), "offsets are not sorted"),
    (cut("levels.0.rises"), "shapes"),
    (cut("levels.0.prob_codes"), "shapes"),
    (cut("levels.1.backoff_codes"), "shapes"),
    (put("levels.0.probs", 9, 0.5), "from 0 to 1"),
    (put("levels.0.backoffs", 9, float("nan")), "not finite"),
    (put("levels.1.backoffs", 0, 1.0), "last entries"),
    (certain("levels.0.probs"), "more than 1"),
    (certain("levels.0.backoffs"), "more than 1"),
    (certain("levels.1.backoffs"), "more than 1"),
]


@pytest.mark.parametrize(
    ("bits", "change", "problem"), [(None, *row) for row in EXACT] + [(8, *row) for row in QUANTIZED]
)
def test_forged_tables_are_refused(bits: int | None, change: Callable[[Tables], None], problem: str) -> None:
    model, stored = tables(bits)
    model.load_state_dict(stored)
    change(stored)
    with pytest.raises((DataError, RuntimeError), match=problem):
        NGramModel(**model.arguments).load_state_dict(stored)


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("smoothing", ["witten_bell", "add_k", "stupid_backoff"])
def test_tables_of_every_method_pass(bits: int | None, smoothing: str) -> None:
    model, stored = tables(bits, smoothing)
    model.load_state_dict(stored)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())


def test_a_checkpoint_with_forged_tables_is_named(tmp_path: Path) -> None:
    model, stored = tables(8)
    model.load_state_dict(stored)
    # Loading takes over the tensors, so that the model now holds the change.
    stored["levels.0.probs"][:] = 0.0
    save_checkpoint(tmp_path / "best.pt", model, {})
    with pytest.raises(LinguistError, match=r"best\.pt: .*not the tables of an n-gram model"):
        load_model(tmp_path / "best.pt")
