"""Composition and its checks: every file that ships, and every way to mistype."""

import contextlib
import dataclasses
import functools
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from torch_linguist.config.build_plan import make_plan
from torch_linguist.config.catalog import GROUPS, SIDE_BY_SIDE, config_root, find_groups
from torch_linguist.config.checking.node_checks import AUTO, INJECTED, OWN, SETTINGS_NODES, check_node, check_types
from torch_linguist.config.checking.signatures import INTERPRETED, parameters_of
from torch_linguist.config.checking.targets import check_targets, locate
from torch_linguist.config.composition import compose_config
from torch_linguist.config.instantiation import instantiate, partial
from torch_linguist.config.overrides import parse_overrides, quoted
from torch_linguist.config.plain import to_plain, to_yaml
from torch_linguist.config.schema import RootConfig
from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.pipeline.stages.order import ORDER
from torch_linguist.trainer.device import choose_device

NEEDED = {"data=text": ["data.path=here"]}
"""Choices with a key that only the user can fill."""

CHOICES = [f"{group}={name}" for group, choices in find_groups().items() for name in choices]


def load(path: Path) -> DictConfig:
    """A YAML file that holds keys."""
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig)
    return node


def has_target(node: DictConfig, key: Any) -> bool:
    """Whether a key of a file holds a node with a `_target_`."""
    return isinstance(node._get_node(key), DictConfig) and "_target_" in node[key]


def refusal(*overrides: str, config_dirs: tuple[Path, ...] = ()) -> str:
    """The one line that a wrong command line ends in."""
    with pytest.raises(ConfigError) as caught:
        check_types(compose_config(overrides, config_dirs).config)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if not choice.startswith("stage=")])
def test_every_file_composes_and_fits_its_class(choice: str) -> None:
    needed = [line for known, lines in NEEDED.items() if choice == known for line in lines]
    composition = compose_config([choice, *needed])
    group, name = choice.split("=")
    assert composition.choices[group] == name
    check_types(composition.config)


NODES = [
    (path.relative_to(config_root()).as_posix(), key)
    for path in sorted(config_root().rglob("*.yaml"))
    for key in ([""] if "_target_" in load(path) else [str(key) for key in load(path) if has_target(load(path), key)])
]
"""Every node with a `_target_` in every file: the file, and the key in it (empty for the file itself)."""

DATA_SET = ("revision", "files", "train", "valid", "test", "streaming", "tokenized", "blank_lines", "expected")
RATES = ("lr", "weight_decay", "betas")
DIFFERENT: dict[str, tuple[str, ...]] = {
    # One class for every data set of the hub: these keys say which.
    **dict.fromkeys(("data/c4.yaml", "data/lm1b.yaml", "data/text8.yaml"), DATA_SET),
    "data/wikitext2.yaml": ("expected",),
    "data/wikitext103.yaml": ("expected", "hub_config", "name"),
    # A Transformer sees what it was trained with.
    "model/transformer.yaml": ("context_length",),
    # Stages choose the rates; torch's second beta suits longer trainings.
    **dict.fromkeys(("optim/adamw.yaml", "optim/lazy_adamw.yaml", "optim/muon.yaml", "optim/sgd.yaml"), RATES),
    "trainer/default.yaml": ("max_minutes",),
}
"""Keys whose value in a file differs from the default of the class."""


@pytest.mark.parametrize(("file", "key"), NODES)
def test_every_node_lists_every_key_of_its_class_with_its_default(file: str, key: str) -> None:
    # A key that a file leaves out is missing from --help; with another default, a notebook and a command would differ.
    node = load(config_root() / file)
    node = node[key] if key else node
    place = key or Path(file).parent.name
    root, choice = ("explore" if place == "explore" else "train"), Path(file).stem
    chosen = [] if key or place == "stage" else [f"{place}={choice}", *NEEDED.get(f"{place}={choice}", [])]
    target = locate(place, str(node["_target_"]))
    parameters = parameters_of(target)
    known = set(parameters) - INJECTED.get(place, frozenset())
    keys = {str(name) for name in node if name not in INTERPRETED} - set(OWN.get(place, ()))
    assert keys == known if target.__module__.startswith("torch_linguist.") else keys <= known

    fields: Any = dataclasses.fields(target) if dataclasses.is_dataclass(target) else ()
    made = {one.name: one.default_factory() for one in fields if callable(one.default_factory)}
    name = choice if place == "stage" else place
    composed = check_node(name, to_plain(compose_config(chosen, config_name=root).config)[name])
    composed = composed[choice] if name in SIDE_BY_SIDE else composed
    for parameter in keys - set(DIFFERENT.get(file, ())):
        default = made.get(parameter, parameters[parameter].default)
        if default is not inspect.Parameter.empty:
            assert rounded(composed[parameter]) == rounded(default), parameter


def rounded(value: Any) -> Any:
    """A value with lists for tuples and numbers to six digits: a third is written so."""
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


@pytest.mark.parametrize("name", [*SETTINGS_NODES, "trainer", "schedule", "tokenizer", "data"])
def test_nodes_become_objects_of_their_class(name: str) -> None:
    config = check_types(compose_config(["trainer.max_minutes=1"]).config)
    made = instantiate(config[name], name)
    assert type(made) is locate(name, config[name]["_target_"])


@pytest.mark.parametrize(
    ("line", "minutes"),
    [
        ([], 1.5),
        (["trainer.max_steps=3"], None),
        (["trainer.max_epochs=3", "trainer.max_minutes=2"], 2.0),
        (["experiment=debug"], None),
    ],
)
def test_the_default_limit_gives_way_to_any_other(line: list[str], minutes: float | None) -> None:
    composition = compose_config(line)
    assert make_plan(composition.config, composition.choices).trainer.max_minutes == minutes


@pytest.mark.parametrize("name", sorted(find_groups()["model"]))
def test_every_model_is_built_from_its_file(name: str) -> None:
    config = check_types(compose_config([f"model={name}"]).config)
    make_model = partial(
        OmegaConf.create({key: value for key, value in config.model.items() if key not in OWN["model"]})
    )
    assert isinstance(make_model, functools.partial)
    assert make_model(vocab_size=50).vocab_size == 50


@pytest.mark.parametrize("name", sorted(find_groups()["optim"]))
def test_every_optimizer_takes_a_step(name: str) -> None:
    config = check_types(compose_config([f"optim={name}"]).config)
    apart = {"lr", "weight_decay", *OWN["optim"]}
    make = partial(OmegaConf.create({key: value for key, value in config.optim.items() if key not in apart}))
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = make([weight], lr=0.1, weight_decay=0.0)
    weight.grad = torch.ones(2)
    optimizer.step()
    assert bool((weight < 1).all())


def test_the_whole_is_typed() -> None:
    config = check_types(compose_config(["trainer.max_steps=1e4", "name=2024", "stages=[fit]", "seed=0"]).config)
    assert config.trainer.max_steps == 10_000
    assert isinstance(config.trainer.max_steps, int)
    assert (config.name, list(config.stages), config.seed) == ("2024", ["fit"], 0)
    assert set(config) == {*inspect.signature(RootConfig).parameters, *ORDER}


def test_an_experiment_overrides_and_is_overridden() -> None:
    plain, debug = compose_config([]).config, compose_config(["experiment=debug"]).config
    assert debug.trainer.max_steps != plain.trainer.max_steps
    assert compose_config(["experiment=debug", "trainer.max_steps=7"]).config.trainer.max_steps == 7
    assert compose_config(["trainer.max_steps=7", "experiment=debug"]).config.trainer.max_steps == 7


@pytest.mark.parametrize("model", sorted(find_groups()["model"]))
@pytest.mark.parametrize("tokenizer", sorted(find_groups()["tokenizer"]))
def test_the_debug_recipe_goes_with_every_model_and_tokenizer(model: str, tokenizer: str) -> None:
    check_types(compose_config(["experiment=debug", f"model={model}", f"tokenizer={tokenizer}"]).config)


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


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="$"), max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_quoted_text_comes_back(text: str) -> None:
    (override,) = parse_overrides([f"name={quoted(text)}"])
    assert override.value() == text


@pytest.mark.parametrize("typed", ["2024_01_05", "1.10", "1e3", "007", "0x10", "a=b", "flag=true", "~a/b"])
def test_a_text_that_looks_like_a_number_stays_as_typed(typed: str) -> None:
    line = [f"name={typed}", "data=text", f"data.path={typed}", f"+data.train_where={typed}", f"resume={typed}"]
    config = compose_config(line).config
    assert [config.name, config.data.path, config.data.train_where, config.resume] == [typed] * 4
    assert to_plain(check_types(config))["data"]["path"] == typed


def test_the_home_folder_is_meant_by_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = compose_config(["output_dir=~/runs", "resume=~/runs/a"]).config
    assert [config.output_dir, config.resume] == [f"{tmp_path}/runs", f"{tmp_path}/runs/a"]


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


def test_a_folder_with_odd_characters_is_searched(tmp_path: Path) -> None:
    folder = tmp_path / "my, 'own' \"(confs)\""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "short.yaml").write_text("_target_: torch_linguist.model.GRU\n")
    assert compose_config(["model=short"], [folder]).choices["model"] == "short"


def test_composition_leaves_hydra_as_it_was() -> None:
    from hydra.core.global_hydra import GlobalHydra

    compose_config([])
    with pytest.raises(ConfigError):
        compose_config(["model.nope=1"])
    assert not GlobalHydra.instance().is_initialized()


def test_the_written_configuration_reads_back() -> None:
    composition = compose_config(["model=gru", "sample.prompts=['a, b','c: d']"])
    config = check_types(composition.config)
    again = OmegaConf.create(to_yaml(config, composition.choices))
    assert isinstance(again, DictConfig)
    assert to_plain(again) == {"choices": composition.choices, **to_plain(config)}


def test_auto_and_own_keys_belong_to_the_optimizers() -> None:
    for key in AUTO:
        assert compose_config([f"{key}=auto"]).config.optim[key.partition(".")[2]] == "auto"
    assert set(OWN) <= set(GROUPS)


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
