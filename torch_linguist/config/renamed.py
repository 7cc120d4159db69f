"""Names that have changed, for old run folders, configurations and command lines."""

from typing import Any

RENAMED_KEYS: dict[str, str] = {"data.tokenised": "data.tokenized"}
"""Old configuration key to new one. Old run folders are read with the new key; elsewhere the error names it."""

_STAGES = "torch_linguist.pipeline.stages"
_SETTINGS = {
    "CheckSettings": f"{_STAGES}.Check",
    "OverfitSettings": f"{_STAGES}.Overfit",
    "LRFindSettings": f"{_STAGES}.LRFind",
    "GridSettings": f"{_STAGES}.Grid",
    "ScoreSettings": "torch_linguist.evaluation.score_settings.ScoreSettings",
    "SampleSettings": "torch_linguist.generation.sample_settings.SampleSettings",
}
_SCHEDULES = ("Constant", "Cosine", "Linear", "OneCycle", "Plateau")

MOVED_CLASSES: dict[str, str] = {
    "torch_linguist.trainer.SGD": "torch_linguist.optim.SGD",
    "torch_linguist.trainer.LazyAdamW": "torch_linguist.optim.LazyAdamW",
    **{f"torch_linguist.trainer.schedules.{name}": f"torch_linguist.optim.schedules.{name}" for name in _SCHEDULES},
    **{f"torch_linguist.trainer.{name}": now for name, now in _SETTINGS.items()},
    **{f"torch_linguist.trainer.settings.{name}": now for name, now in _SETTINGS.items()},
}
"""Old `_target_` to new one. Old run folders are read with the new name; elsewhere the error names it."""


def with_new_names(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of an old run with today's keys and classes."""
    renamed = {key: _with_new_targets(value) for key, value in config.items()}
    for old, new in RENAMED_KEYS.items():
        (parent, _, leaf), (new_parent, _, new_leaf) = old.rpartition("."), new.rpartition(".")
        node = renamed.get(parent) if parent else renamed
        home = renamed.get(new_parent) if new_parent else renamed
        if isinstance(node, dict) and isinstance(home, dict) and leaf in node:
            home.setdefault(new_leaf, node.pop(leaf))
    return renamed


def _with_new_targets(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_new_targets(item) for item in value]
    if not isinstance(value, dict):
        return value
    inner = {name: _with_new_targets(item) for name, item in value.items()}
    if isinstance(target := inner.get("_target_"), str):
        inner["_target_"] = MOVED_CLASSES.get(target, target)
    return inner
