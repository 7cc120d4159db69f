"""The choice of the device that computes."""

import pytest
import torch

from torch_linguist.errors import ConfigError
from torch_linguist.runs.devices import choose_device, scoring_device


def test_choosing_a_device() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == expected


def test_mps_scores_only_if_it_is_named() -> None:
    assert scoring_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "xyz:0"])
def test_a_device_that_is_not_here_is_named(name: str) -> None:
    for choose, field in ((choose_device, "trainer.device"), (scoring_device, "--device")):
        with pytest.raises(
            ConfigError, match=f"{field}={name}: (not available here|must be one of auto, cpu)"
        ) as caught:
            choose(name)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.gpu
def test_float32_is_not_rounded_on_cuda() -> None:
    torch.backends.cudnn.allow_tf32 = True
    choose_device("cuda")
    assert not torch.backends.cudnn.allow_tf32
