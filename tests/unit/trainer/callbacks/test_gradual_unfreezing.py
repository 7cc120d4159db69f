from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from torch_linguist.model import LanguageModel
from torch_linguist.trainer import Callback, Fit
from torch_linguist.trainer.context import TrainingContext


class Changed(Callback):
    """Notes which layers each update changed."""

    def __init__(self) -> None:
        self.layers: list[list[bool]] = []

    def before_update(self, training: Fit) -> None:
        self._before = [[weight.detach().clone() for weight in group] for group in training.model.layer_groups()]

    def after_update(self, training: Fit) -> None:
        self.layers.append(
            [
                any(not torch.equal(old, new) for old, new in zip(before, group, strict=True))
                for before, group in zip(self._before, training.model.layer_groups(), strict=True)
            ]
        )


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_layers_join_from_the_output_down(
    family: str, build_model: Callable[..., LanguageModel], make_context: Callable[..., TrainingContext], tmp_path: Path
) -> None:
    model, noted = build_model(family, 50, num_layers=2, tied=False), Changed()
    assert sum(len(group) for group in model.layer_groups()) == len(list(model.parameters()))
    Fit(model, make_context(max_steps=8, freeze=2), 0.01, 0.0, tmp_path, [noted]).run()
    assert [sum(layers) for layers in noted.layers] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert all(layers == sorted(layers) for layers in noted.layers), "never a layer below a frozen one"
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_weight_that_is_never_trained_stays_frozen(
    build_model: Callable[..., LanguageModel], make_context: Callable[..., TrainingContext], tmp_path: Path
) -> None:
    model = build_model("lstm", 50, num_layers=2, tied=False)
    embedding = model.get_parameter("embedding.weight").requires_grad_(False)
    before = embedding.clone()
    Fit(model, make_context(max_steps=8, freeze=2), 0.01, 0.0, tmp_path).run()
    assert not embedding.requires_grad
    assert embedding.grad is None
    assert torch.equal(embedding, before)
