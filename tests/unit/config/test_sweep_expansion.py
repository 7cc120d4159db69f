"""Lists of values become points, as Hydra's own sweeper makes them."""

import hydra
import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from torch_linguist.config.catalog import find_groups
from torch_linguist.config.composition import compose_config
from torch_linguist.config.sweep_expansion import expand, plan_sweep, search_space, split_own, with_seeds
from torch_linguist.errors import ConfigError
from torch_linguist.sweep.search import Choices, Interval
from torch_linguist.sweep.sweep_settings import GridPoints, SearchSpace, SweepSettings

GROUPS = find_groups()

LINES = [
    ["seed=1"],
    ["model=lstm,gru", "optim.lr=1e-3,3e-3"],
    ["model=lstm,gru", "seed=range(1,4)", "trainer.max_steps=10"],
    ["optim.lr=choice(1e-3,auto)", "stages=[check,fit],[fit]"],
    ["+model.extra=a,b", "++seed=3", "~model.tied"],
    ["name='a,b'", 'data.path="x (1)",y'],
    ["optim.lr=range(0.1,0.5,0.2)"],
    ["a=1", "a=2,3"],
    ["trainer={a:1},{a:2}", "b=null,true,x y"],
]


@pytest.mark.parametrize("lines", LINES)
def test_points_are_those_of_hydras_sweeper(lines: list[str]) -> None:
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(lines), max_batch_size=None)
    expected = [[line.removesuffix("=") if line.startswith("~") else line for line in point] for point in batch]
    # Hydra writes a deletion as `~key=`, which its own parser takes for an empty value.
    made = [
        [line.removesuffix("=null") if line.startswith("~") else line for line in one.overrides]
        for one in expand(lines, {})
    ]
    assert made == [[line.removesuffix("=null") if line.startswith("~") else line for line in one] for one in expected]


def test_swept_keys_are_separated_from_the_rest() -> None:
    points = expand(["model=lstm,gru", "seed=3", "+model.extra=1,2"], GROUPS)
    assert [dict(point.swept) for point in points] == [
        {"model": "lstm", "model.extra": "1"},
        {"model": "lstm", "model.extra": "2"},
        {"model": "gru", "model.extra": "1"},
        {"model": "gru", "model.extra": "2"},
    ]
    assert points[-1].overrides == ("model=gru", "seed=3", "+model.extra=2")


def test_no_list_is_one_point() -> None:
    (point,) = expand([], GROUPS)
    assert (point.overrides, dict(point.swept)) == ((), {})


def test_glob_takes_the_choices_of_a_group() -> None:
    assert [point.swept["model"] for point in expand(["model=glob(*)"], GROUPS)] == list(GROUPS["model"])
    assert [point.swept["model"] for point in expand(["model=glob([l*,g*],exclude=gpt*)"], GROUPS)] == ["gru", "lstm"]


def test_a_value_that_is_listed_twice_runs_once() -> None:
    assert len(expand(["seed=1,1,2"], GROUPS)) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed=interval(1,3)", "seed=interval(1,3): an interval cannot be listed; use a list"),
        ("seed=glob(*)", "seed=glob(*): glob works on groups only: data, "),
        ("model=glob(z*)", "model=glob(z*): lists no value"),
        ("seed=range(1,1)", "seed=range(1,1): lists no value"),
        ("seed=range(0,1,0)", "seed=range(0,1,0): range() arg 3 must not be zero"),
        ("seed=range(0,100000)", "seed: makes a grid of more than 10,000 runs"),
        ("seed=[", "seed=[: cannot be read"),
    ],
)
def test_grids_that_cannot_be_are_refused(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand([line], GROUPS)
    assert str(caught.value).startswith(message)


OWN = {"jobs": int, "name": str | None, "keep_going": bool}


def test_the_grids_own_keys_are_taken_out() -> None:
    own, others = split_own(["jobs=2", "seed=1,2", 'name="a b"', "keep_going=false"], OWN)
    assert own == {"jobs": 2, "name": "a b", "keep_going": False}
    assert others == ["seed=1,2"]
    with pytest.raises(ConfigError, match=r"^jobs=1,2: takes a single value"):
        split_own(["jobs=1,2"], OWN)
    assert split_own(["name=1.10"], OWN)[0] == {"name": "1.10"}


def test_each_point_gets_its_seeds() -> None:
    points = expand(["model=lstm,gru", "seed=7"], GROUPS)
    groups = with_seeds(points, 2, [7, 7])
    assert [[point.overrides for point in group] for group in groups] == [
        [("model=lstm", "seed=7"), ("model=lstm", "seed=8")],
        [("model=gru", "seed=7"), ("model=gru", "seed=8")],
    ]
    assert dict(groups[1][1].swept) == {"model": "gru", "seed": "8"}
    with pytest.raises(ConfigError, match=r"^seeds=2: the seed is already swept"):
        with_seeds(expand(["seed=1,2"], GROUPS), 2, [1, 2])


def test_the_axes_of_a_search() -> None:
    lines = ["model=glob([l*,g*])", "a=interval(0,1)", "b=tag(log,interval(1e-4,1e-2))", "c=int(interval(16,128))"]
    lines += [
        "d=range(1,10,2)",
        "e=range(0.1,0.5,0.2)",
        "+f=x,[y]",
        "g=3",
        "a=tag(log,int(interval(2,9)))",
        "h=1,2",
        "h=1",
    ]
    fixed, axes = search_space(lines, GROUPS)
    assert fixed == ("g=3", "h=1")
    assert axes == {
        "model": Choices(("gru", "lstm")),
        "b": Interval(1e-4, 1e-2, log=True),
        "c": Interval(16, 128, whole=True),
        # Hydra's range leaves its end out.
        "d": Interval(1, 9, step=2, whole=True),
        # Hydra 1.4 rounds.
        "e": Choices(("0.1", str(0.1 + 0.2) if hydra.__version__ < "1.4" else "0.3")),
        "+f": Choices(("x", "[y]")),
        "a": Interval(2, 9, log=True, whole=True),
    }
    assert axes["c"].examples == ("16", "128")
    assert axes["b"].examples == ("0.0001", "0.01")
    with pytest.raises(ConfigError, match="nothing to search"):
        search_space(["seed=3"], GROUPS)
    with pytest.raises(ConfigError, match=r"^a=tag\(log,interval\(0,1\)\): .*a logarithmic scale needs ends"):
        search_space(["a=tag(log,interval(0,1))"], GROUPS)


def test_names_that_look_like_numbers_stay_as_typed() -> None:
    lines = ["data=text", "data.path=2024_01_05,1e3,choices", "optim.lr=1e-3,2e-3"]
    points = plan_sweep(lines, [], SweepSettings())
    assert isinstance(points, GridPoints)
    composed = [compose_config(group[0].overrides).config for group in points.points]
    assert [config.data.path for config in composed[::2]] == ["2024_01_05", "1e3", "choices"]
    assert [config.optim.lr for config in composed[:2]] == [0.001, 0.002]


def test_a_search_has_intervals_beside_lists_of_numbers() -> None:
    lines = ["optim.lr=tag(log,interval(3e-4,3e-2))", "model.dropout=0,0.2"]
    space = plan_sweep(lines, [], SweepSettings(sweep="tpe"))
    assert isinstance(space, SearchSpace)
    assert space.axes == {"optim.lr": Interval(3e-4, 3e-2, log=True), "model.dropout": Choices(("0", "0.2"))}
