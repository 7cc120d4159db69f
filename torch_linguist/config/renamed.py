"""Names that have changed: old configurations and command lines get the new name in their error message."""

RENAMED_KEYS: dict[str, str] = {"data.tokenized": "data.tokenized"}
"""Old configuration key to new one, such as `data.old_name` to `data.new_name`."""

MOVED_CLASSES: dict[str, str] = {
    "torch_linguist.trainer.SGD": "torch_linguist.optim.SGD",
    "torch_linguist.trainer.LazyAdamW": "torch_linguist.optim.LazyAdamW",
    "torch_linguist.trainer.schedules.Constant": "torch_linguist.optim.schedules.Constant",
    "torch_linguist.trainer.schedules.Cosine": "torch_linguist.optim.schedules.Cosine",
    "torch_linguist.trainer.schedules.Linear": "torch_linguist.optim.schedules.Linear",
    "torch_linguist.trainer.schedules.OneCycle": "torch_linguist.optim.schedules.OneCycle",
    "torch_linguist.trainer.schedules.Plateau": "torch_linguist.optim.schedules.Plateau",
    "torch_linguist.trainer.CheckSettings": "torch_linguist.pipeline.stages.Check",
    "torch_linguist.trainer.OverfitSettings": "torch_linguist.pipeline.stages.Overfit",
    "torch_linguist.trainer.LRFindSettings": "torch_linguist.pipeline.stages.LRFind",
    "torch_linguist.trainer.GridSettings": "torch_linguist.pipeline.stages.Grid",
    "torch_linguist.trainer.ScoreSettings": "torch_linguist.evaluation.score_settings.ScoreSettings",
    "torch_linguist.trainer.SampleSettings": "torch_linguist.generation.sample_settings.SampleSettings",
    "torch_linguist.trainer.settings.CheckSettings": "torch_linguist.pipeline.stages.Check",
    "torch_linguist.trainer.settings.OverfitSettings": "torch_linguist.pipeline.stages.Overfit",
    "torch_linguist.trainer.settings.LRFindSettings": "torch_linguist.pipeline.stages.LRFind",
    "torch_linguist.trainer.settings.GridSettings": "torch_linguist.pipeline.stages.Grid",
    "torch_linguist.trainer.settings.ScoreSettings": "torch_linguist.evaluation.score_settings.ScoreSettings",
    "torch_linguist.trainer.settings.SampleSettings": "torch_linguist.generation.sample_settings.SampleSettings",
}
"""Old `_target_` to new one; the `config.yaml` of an older run is read as if it named the new class."""

__all__ = ["MOVED_CLASSES", "RENAMED_KEYS"]
