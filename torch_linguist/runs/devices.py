"""Choice of the device that computes, by its name."""

import torch

from torch_linguist.errors import ConfigError, require

DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices; `cuda:1` names one of several."""


def choose_device(name: str = "auto", field: str = "trainer.device") -> torch.device:
    """Return the named device; for `auto` the first available of CUDA, MPS and CPU.

    From then on, float32 is float32 on CUDA too: by default cuDNN computes recurrent layers in TF32, whose products
    have ten bits.

    Args:
        name: `auto`, or a device of PyTorch, such as `cuda:1`.
        field: name of the setting, for errors.

    Raises:
        ConfigError: the device is not available.
    """
    device = _named(name, field)
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    return device


def scoring_device(name: str, field: str = "--device") -> torch.device:
    """Return the device for a finished model; `auto` is CUDA, or the CPU.

    MPS has to be named: it has computed recurrent models wrongly without any error (pytorch#92615, pytorch#107294).

    Raises:
        ConfigError: the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return choose_device(name, field)


def _named(name: str, field: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    require(name.partition(":")[0] in DEVICES, f"{field}={name}: must be one of auto, {', '.join(DEVICES)}")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ConfigError(f"{field}={name}: not available here ({reason}); try cpu") from error
    return device
