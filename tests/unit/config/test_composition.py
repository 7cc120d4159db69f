"""Composition: every configuration file fits its class, and overrides keep their meaning."""

import dataclasses
import functools
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from torch_linguist.config.build_plan import make_plan
from torch_linguist.config.catalog import GROUPS, SIDE_BY_SIDE, config_root, find_groups
from torch_linguist.config.checking.node_checks import AUTO, INJECTED, OWN, SETTINGS_NODES, check_node, check_types
from torch_linguist.config.checking.signatures import INTERPRETED, parameters_of
from torch_linguist.config.checking.targets import locate
from torch_linguist.config.composition import compose_config
from torch_linguist.config.instantiation import instantiate, partial
from torch_linguist.config.overrides import parse_overrides, quoted
from torch_linguist.config.plain import to_plain, to_yaml
from torch_linguist.config.schema import RootConfig
from torch_linguist.errors import ConfigError
from torch_linguist.pipeline.stages.order import ORDER

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
    # Hydra 1.4 keeps tuples, which YAML does not have.
    expected = {"choices": composition.choices, **to_plain(config)}
    assert json.loads(json.dumps(to_plain(again))) == json.loads(json.dumps(expected))


def test_auto_and_own_keys_belong_to_the_optimizers() -> None:
    for key in AUTO:
        assert compose_config([f"{key}=auto"]).config.optim[key.partition(".")[2]] == "auto"
    assert set(OWN) <= set(GROUPS)
