"""Type hints as a schema: what is accepted, what is converted, and what a refusal says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_linguist.config.checking.signatures import MismatchError, check_arguments, convert, describe, show
from torch_linguist.errors import ConfigError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
HINTS: list[Any] = [
    int,
    float,
    str,
    bool,
    Path,
    int | None,
    Literal["a", "b"],
    Sequence[float],
    list[int] | None,
    tuple[float, float],
    tuple[int, ...],
    Mapping[str, int],
    float | Literal["auto"],
    int | str,
]


class Component:
    def __init__(
        self,
        given: str,
        hidden_size: int = 3,
        *,
        kind: Literal["full", "adaptive"] = "full",
        rates: Sequence[float] = (),
    ) -> None: ...


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, int, 3),
        (1e4, int, 10_000),
        (3, float, 3.0),
        ("x", str, "x"),
        (2024, str, "2024"),
        ("x", Path, Path("x")),
        (None, int | None, None),
        ("auto", float | Literal["auto"], "auto"),
        ([1, 2], Sequence[float], [1.0, 2.0]),
        ([1, 2.5], tuple[float, float], (1.0, 2.5)),
        ([1, 2, 3], tuple[int, ...], (1, 2, 3)),
        ({"a": 1}, Mapping[str, float], {"a": 1.0}),
        ("3", int | str, "3"),
        (3, int | str, 3),
        (3, object, 3),
    ],
)
def test_accepted_values_take_the_hinted_type(value: Any, hint: Any, expected: Any) -> None:
    converted = convert(value, hint)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ("abc", int, "not an int"),
        (1.5, int, "not an int"),
        (True, int, "not an int"),
        (float("nan"), int, "must be a whole number below 2**63"),
        (float("inf"), int, "must be a whole number below 2**63"),
        ("1", float, "not a number"),
        (1, bool, "not a bool (true or false)"),
        (True, str, "not a text"),
        (None, int, "not an int"),
        ("abc", int | None, "not an int or null"),
        ("ful", Literal["full", "adaptive"], "not one of full, adaptive; nearest: full"),
        ("fit", list[str], "not a list; write [fit]"),
        ([1, "a"], list[int], "a in it is not an int"),
        ([1, "a"], Sequence[int] | None, "a in it is not an int"),
        ([1], tuple[float, float], "not a list of 2 values"),
        (3, Mapping[str, int], "not a mapping"),
        ({"a": "x"}, Mapping[str, int], "a:x in it is not an int"),
    ],
)
def test_refused_values_say_what_was_wanted(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(MismatchError) as caught:
        convert(value, hint)
    assert str(caught.value) == message


@given(VALUES, st.sampled_from(HINTS))
def test_a_value_is_either_converted_for_good_or_refused(value: Any, hint: Any) -> None:
    try:
        converted = convert(value, hint)
    except MismatchError:
        return
    again = convert(list(converted) if isinstance(converted, tuple) else converted, hint)
    # Compared as text: nan is not equal to itself.
    assert repr(again) == repr(converted)


@given(VALUES)
def test_values_are_shown_on_one_line(value: Any) -> None:
    assert len(show(value).splitlines()) <= 1


def test_arguments_are_checked_against_the_constructor() -> None:
    checked = check_arguments("model", {"given": "x", "hidden_size": 1e2, "rates": [1]}, Component)
    assert checked == {"given": "x", "hidden_size": 100, "rates": [1.0]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"given": "x", "hiden_size": 3}, "model.hiden_size=3: no such key; nearest: model.hidden_size"),
        ({"given": "x", "zzz": 3}, "model.zzz=3: no such key; existing keys: model.given, "),
        ({}, "model.given: has no value; give one with model.given=…"),
        ({"given": "x", "kind": "adaptve"}, "model.kind=adaptve: not one of full, adaptive; nearest: adaptive"),
        ({"given": "x", "hidden_size": None}, "model.hidden_size=null: not an int"),
    ],
)
def test_a_wrong_argument_is_named_with_its_key(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_arguments("model", arguments, Component)
    assert str(caught.value).startswith(message)


def test_injected_arguments_cannot_be_given() -> None:
    assert check_arguments("model", {}, Component, injected={"given"}) == {}
    with pytest.raises(ConfigError, match=r"^model\.given=x: is set by the program"):
        check_arguments("model", {"given": "x"}, Component, injected={"given"})


def test_any_keyword_is_taken_where_the_constructor_takes_any() -> None:
    def build(known: int = 1, **others: Any) -> None: ...

    assert check_arguments("k", {"known": 2, "free": "x"}, build) == {"known": 2, "free": "x"}


def test_tensors_are_no_lists() -> None:
    # By its methods alone a Tensor is a collection; `lr: float | Tensor` still means a number.
    import torch

    assert convert(3, float | torch.Tensor) == 3.0
    assert describe(float | torch.Tensor) == "a number"
    with pytest.raises(MismatchError, match=r"^not a number$"):
        convert("x", float | torch.Tensor)
