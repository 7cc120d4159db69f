"""Old names: run folders of earlier versions are read with today's, everything else is told of them."""

import shutil
from pathlib import Path

import pytest

from torch_linguist.config.build_plan import make_plan
from torch_linguist.config.checking.node_checks import check_types
from torch_linguist.config.checking.targets import locate
from torch_linguist.config.composition import compose_config
from torch_linguist.config.renamed import MOVED_CLASSES, RENAMED_KEYS, with_new_names
from torch_linguist.config.stored_config import read_run_config
from torch_linguist.errors import ConfigError
from torch_linguist.pipeline.stages import FitStage, LRFind

OLD = Path(__file__).resolve().parents[2] / "assets" / "config_of_version_0.1.yaml"


def test_the_configuration_of_an_old_run_becomes_a_plan(tmp_path: Path) -> None:
    shutil.copy(OLD, tmp_path / "config.yaml")
    assert "torch_linguist.trainer.settings.LRFindSettings" in OLD.read_text()
    config, choices = read_run_config(tmp_path)
    plan = make_plan(config, choices)
    assert [stage.name for stage in plan.stages] == ["check", "lr_find", "fit"]
    finder, fit = plan.stages[1:]
    assert isinstance(finder, LRFind)
    assert (finder.steps, finder.trial_steps) == (20, 5)
    assert isinstance(fit, FitStage)
    assert (plan.sample.tokens, plan.score.baseline_order, plan.trainer.max_steps) == (15, 2, 50)


@pytest.mark.parametrize("old", MOVED_CLASSES)
def test_a_moved_class_is_where_the_table_says(old: str, tmp_path: Path) -> None:
    assert callable(locate("somewhere", MOVED_CLASSES[old]))
    with pytest.raises(ConfigError, match=f"^model._target_={old}: is now {MOVED_CLASSES[old]}; write that$"):
        locate("model", old)
    assert with_new_names({"a": [{"_target_": old}]}) == {"a": [{"_target_": MOVED_CLASSES[old]}]}


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_a_renamed_key_is_named_on_the_command_line_and_moved_in_old_runs(old: str, new: str) -> None:
    chosen = ["data=text", "data.path=here"] if old.startswith("data.") else []
    for line in (f"{old}=3", f"+{old}=3"):
        with pytest.raises(ConfigError, match=f"^{old}=3: is now called {new}; write that$"):
            check_types(compose_config([*chosen, line]).config)
    (group, leaf), (home, new_leaf) = old.split("."), new.split(".")
    assert with_new_names({group: {leaf: 1}, home: {}} if group != home else {group: {leaf: 1}})[home] == {new_leaf: 1}
