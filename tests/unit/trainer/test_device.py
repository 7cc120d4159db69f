"""The choice of device and precision, and what a training leaves of the processor's mode."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_linguist.data import TokenizedCorpus
from torch_linguist.model import RNN
from torch_linguist.trainer import device, train
from torch_linguist.trainer.device import choose_precision, denormals_flushed


def flushes() -> bool:
    return bool(np.finfo(np.float64).tiny / np.float64(2.0) == 0)


def test_a_given_precision_stays() -> None:
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"
    assert choose_precision("fp32", torch.device("cpu")) == "fp32"
    assert choose_precision("auto", torch.device("mps")) == "fp32"
    assert choose_precision("auto", torch.device("cpu")) in ("fp32", "bf16")


@pytest.mark.parametrize(("gain", "chosen"), [(1.2, "fp32"), (2.5, "bf16")])
def test_the_choice_of_a_machine_is_kept(
    gain: float, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_LINGUIST_CACHE", str(tmp_path))
    measured: list[float] = []

    def measure() -> float:
        measured.append(gain)
        return gain

    monkeypatch.setattr(device, "measure_bfloat16_gain", measure)
    path = tmp_path / device.BFLOAT16_GAINS
    path.write_text("not whole", encoding="utf-8")
    for _ in range(3):  # As three processes would.
        device.bfloat16_gain.cache_clear()
        assert choose_precision("auto", torch.device("cpu")) == chosen
    assert measured == [gain]
    (kept,) = json.loads(path.read_text(encoding="utf-8")).items()
    assert torch.__version__ in kept[0]
    assert kept[1] == gain
    device.bfloat16_gain.cache_clear()


def test_a_machine_that_keeps_nothing_measures_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_LINGUIST_CACHE", "/proc/none")
    monkeypatch.setattr(device, "measure_bfloat16_gain", lambda: 9.0)
    device.bfloat16_gain.cache_clear()
    assert choose_precision("auto", torch.device("cpu")) == "bf16"
    device.bfloat16_gain.cache_clear()


@pytest.mark.parametrize("before", [True, False])
def test_the_processor_goes_back_to_its_mode(before: bool) -> None:
    def interrupted() -> None:
        with denormals_flushed():
            assert flushes()
            raise KeyboardInterrupt

    torch.set_flush_denormal(before)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert flushes() is before
    finally:
        torch.set_flush_denormal(False)


def test_a_training_leaves_the_processor_alone(tiny_corpus: TokenizedCorpus) -> None:
    model = RNN(tiny_corpus.tokenizer.vocab_size, 4, 4)
    train(model, tiny_corpus, max_steps=1, batch_size=2, sequence_length=4, eval_tokens=10, device="cpu")
    assert not flushes()
