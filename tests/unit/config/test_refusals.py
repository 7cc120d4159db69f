"""Refused configurations: each mistake ends in one line that names the key, the value and the way out."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from torch_linguist.config.build_plan import make_plan
from torch_linguist.config.checking.node_checks import check_types
from torch_linguist.config.checking.targets import check_targets
from torch_linguist.config.composition import compose_config
from torch_linguist.config.instantiation import instantiate
from torch_linguist.config.plain import to_plain
from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.runs.devices import choose_device


def refusal(*overrides: str, config_dirs: tuple[Path, ...] = ()) -> str:
    """The one line that a wrong command line ends in."""
    with pytest.raises(ConfigError) as caught:
        check_types(compose_config(overrides, config_dirs).config)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("model=lsmt", "model=lsmt: there is no such model; nearest: lstm. Choices: "),
        ("model=null", "model=null: a choice is needed. Choices: "),
        ("model={a:1}", "model={a:1}: there is no such model"),
        ("experiment=[debug,nope]", "experiment=nope: there is no such experiment. Choices: debug"),
        ("model.hiden_size=3", "model.hiden_size=3: no such key; nearest: model.hidden_size"),
        ("modle=gru", "modle=gru: no such key; nearest: model"),
        ("hidden_size=3", "hidden_size=3: no such key; nearest: model.hidden_size"),
        ("trainer.lr=3", "trainer.lr=3: no such key; nearest: optim.lr"),
        ("~model.tyed", "model.tyed=null: no such key; nearest: model.tied"),
        ("+model.hiden_size=3", "model.hiden_size=3: no such key; nearest: model.hidden_size"),
        ("+sede=3", "sede=3: no such key; nearest: seed"),
        ("+model.vocab_size=3", "model.vocab_size=3: is set by the program; leave it out"),
        ("trainer.batch_size=abc", "trainer.batch_size=abc: not an int"),
        ("trainer.batch_size=2.5", "trainer.batch_size=2.5: not an int"),
        ("trainer.max_minutes=soon", "trainer.max_minutes=soon: not a number or null"),
        ("model.tied=3", "model.tied=3: not a bool (true or false)"),
        ("seed=abc", "seed=abc: not an int"),
        ("seed=null", "seed=null: not an int"),
        ("stages=fit", "stages=fit: not a list; write [fit]"),
        ("optim.lr=-1", 'optim.lr=-1: must be "auto" or a number greater than 0'),
        ("optim.lr=0", 'optim.lr=0: must be "auto" or a number greater than 0'),
        ("optim.lr=inf", 'optim.lr=inf: must be "auto" or a number greater than 0'),
        ("optim.lr=nan", 'optim.lr=nan: must be "auto" or a number greater than 0'),
        ("optim.lr=quick", 'optim.lr=quick: must be "auto" or a number greater than 0'),
        ("optim.lr=null", 'optim.lr=null: must be "auto" or a number greater than 0'),
        ("optim.weight_decay=-1", 'optim.weight_decay=-1: must be "auto" or a number of at least 0'),
        ("optim.decay_all=3", "optim.decay_all=3: not a bool (true or false)"),
        ("optim.betas=[0.9]", "optim.betas=[0.9]: not a list of 2 values"),
        ("data=text", "data.path: has no value; give one with data.path=…"),
        ("~model", "~model: a run needs a choice of the group model"),
        ("check=null", "check=null: is a group of settings"),
        ("model=gru,lstm", "model=gru,lstm: is a list of values for tl-grid"),
        ("seed=range(1,3)", "seed=range(1,3): is a list of values for tl-grid"),
        ("data.path=a(1).txt", "data.path=a(1).txt: cannot be read; quote a text with special characters twice: "),
        ("nonsense", "nonsense: not an override; write key=value"),
        ("hydra.run.dir=x", "hydra.run.dir=x: Hydra's own settings have no effect here"),
        ("model.hidden_size=${sed}", "model.hidden_size: Interpolation key 'sed' not found"),
        ("resume=${sed}", "resume: Interpolation key 'sed' not found"),
        ("model._target_=torch_linguist.model.LSMT", "model._target_=torch_linguist.model.LSMT: cannot be imported"),
        ("model._target_=nowhere", "model._target_=nowhere: not a class; write package.module.Class"),
    ],
)
def test_each_mistake_ends_in_a_line_with_a_way_out(overrides: str, message: str) -> None:
    assert refusal(overrides).startswith(message)


def test_a_key_of_another_choice_says_which() -> None:
    assert refusal("model=lstm", "model.num_heads=2").endswith("It is a key of model=transformer")


@given(st.text(min_size=1, max_size=30))
@example("a=b=c")
@example("seed=[")
@example("=1")
@example("seed=3")
@settings(max_examples=60, deadline=None)
def test_no_text_at_all_crashes(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert compose_config([text]).overrides == (text,)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed=18446744073709551616", "seed=18446744073709551616: must be a whole number below 2**63"),
        ("optim.eps=inf", "optim.eps=inf: must be a finite number"),
        ("trainer.z_loss=nan", "trainer.z_loss=nan: must be a finite number"),
        ("trainer.max_steps=1e30", "trainer.max_steps=1e+30: must be a whole number below 2**63"),
        ("trainer.max_minutes=inf", "trainer.max_minutes=inf: must be a finite number"),
        ("trainer.gradient_clip=inf", "trainer.gradient_clip=inf: must be a finite number"),
        ("~model=1", "~model=1: a run needs a choice of the group model"),
        ("~data", "~data: a run needs a choice of the group data"),
    ],
)
def test_values_out_of_range_end_in_one_line(line: str, message: str) -> None:
    assert refusal(line).startswith(message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed=-1", "seed=-1: must be between 0 and 2**63 - 1"),
        ("model.num_layers=100000000", "model.num_layers=100000000: must be between 1 and 1,000"),
        (f"model.hidden_size={10**18}", f"model.hidden_size={10**18}: must be between 1 and 16,777,216"),
        ("trainer.device=meta", "trainer.device=meta: must be one of auto, cpu, cuda, mps, xpu"),
    ],
)
def test_values_that_their_classes_refuse(line: str, message: str) -> None:
    composition = compose_config([line])

    def build_all() -> None:
        plan = make_plan(composition.config, composition.choices)
        choose_device(plan.trainer.device)
        plan.make_model(vocab_size=20)

    with pytest.raises(LinguistError) as caught:
        build_all()
    assert str(caught.value).startswith(message)


def test_a_class_may_know_more_than_its_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "short.yaml").write_text("_target_: torch_linguist.model.GRU\n")
    config = compose_config(["model=short", "model.hidden_size=12"], [tmp_path]).config
    assert check_types(config).model.hidden_size == 12
    assert "nearest: model.hidden_size" not in refusal("model=short", "model.vocab_size=3", config_dirs=(tmp_path,))


def test_a_recipe_with_a_wrong_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    recipe = tmp_path / "experiment" / "bad.yaml"
    recipe.write_text("# @package _global_\ntrainer:\n  batchsize: 3\n")
    assert refusal("experiment=bad", config_dirs=(tmp_path,)).startswith("trainer.batchsize=3: no such key; nearest: ")
    recipe.write_text("# @package _global_\nseed: abc\n")
    line = refusal("experiment=bad", config_dirs=(tmp_path,))
    assert line == "experiment/bad.yaml: seed: Value 'abc' of type 'str' could not be converted to Integer"
    for content in (b"# @package _global_\nseed: [\n", b"seed: \xff\n", b"- 1\n"):
        recipe.write_bytes(content)
        assert "bad.yaml" in refusal("experiment=bad", config_dirs=(tmp_path,))
    recipe.write_text("# @package _global_\nsede: 1\n")
    assert "sede" in refusal("experiment=bad", config_dirs=(tmp_path,))


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.load",
        "torch.optim.adam.torch.load",
        "torch_linguist.cli.sweep.subprocess.Popen",
        "torch_linguist.config.instantiation.hydra.utils.instantiate",
        "torch_linguist.config.catalog.Path",
        "torch_linguist.cli.train.main",
        "torch_linguist.nowhere.Class",
        "torch_linguistic.Class",
        3,
    ],
)
def test_a_strangers_configuration_names_no_foreign_class(target: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        check_targets({"model": {"deep": [{"_target_": target}]}})
    assert str(caught.value).startswith(f"model.deep.0._target_={target}: ")


def test_our_own_configuration_passes() -> None:
    check_targets(to_plain(compose_config([]).config))


def test_a_refusal_of_the_class_keeps_its_words() -> None:
    config = check_types(compose_config(["trainer.batch_size=0"]).config)
    with pytest.raises(ConfigError, match=r"^trainer\.batch_size=0: must be greater than 0$"):
        instantiate(config.trainer, "trainer")
