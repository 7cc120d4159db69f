"""Settings of stages that are out of range are named."""

from typing import Any

import pytest

from torch_linguist.errors import ConfigError
from torch_linguist.evaluation.score_settings import ScoreSettings
from torch_linguist.generation.sample_settings import SampleSettings
from torch_linguist.pipeline.stages import Check, Grid, LRFind, Overfit


@pytest.mark.parametrize(
    ("kind", "options", "names"),
    [
        (Check, {"batches": 0}, "check.batches=0"),
        (Overfit, {"target": 0}, "overfit.target=0"),
        (LRFind, {"start": 1.0, "end": 0.1}, "lr_find.end=0.1"),
        (LRFind, {"steps": 9}, "lr_find.steps=9"),
        (LRFind, {"trial_factors": [1.0, 0.0]}, "lr_find.trial_factors=0.0"),
        (LRFind, {"smoothing": 1.0}, "lr_find.smoothing=1.0"),
        (LRFind, {"suggestion": "vally"}, "lr_find.suggestion=vally: .*valley"),
        (Grid, {"weight_decay": []}, "grid.weight_decay="),
        (Grid, {"weight_decay": [-1.0]}, "grid.weight_decay=-1.0"),
        (SampleSettings, {"temperature": 0}, "sample.temperature=0"),
        (SampleSettings, {"top_k": -1}, "sample.top_k=-1"),
        (ScoreSettings, {"stride": 0}, "score.stride=0"),
    ],
)
def test_wrong_settings_are_named(kind: Any, options: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError, match=names) as caught:
        kind(**options)
    assert "\n" not in str(caught.value)
