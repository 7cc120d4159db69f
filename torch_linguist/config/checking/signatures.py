"""The signature of a constructor as the schema of its configuration node.

The values of a node (plain Python, as YAML holds it) are checked against the type hints of the class that `_target_`
names, and converted where a user expects it: `1e4` to an int, `3` to a float or a text. Nothing is called.

pydantic's `TypeAdapter` does not fit: its lax mode takes `true` for 1 and `"1"` for a number, its strict mode refuses
`1e4` for an int and `2024` for a text, and every message would have to be rewritten.
"""

import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from torch_linguist.config.catalog import nearest
from torch_linguist.config.renamed import RENAMED_KEYS
from torch_linguist.errors import ConfigError

INTERPRETED = frozenset({"_target_", "_partial_", "_recursive_", "_convert_", "_args_"})
"""Keys of a node that are for the instantiation, not for the constructor."""


class MismatchError(Exception):
    """A value does not fit a type hint. The message completes `key=value: …`."""


def parameters_of(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters that a target accepts by name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: entry for name, entry in inspect.signature(target).parameters.items() if entry.kind in kinds}


def takes_any_keyword(target: Callable[..., Any]) -> bool:
    """Return whether a target accepts `**kwargs`."""
    return any(entry.kind is inspect.Parameter.VAR_KEYWORD for entry in inspect.signature(target).parameters.values())


def check_arguments(
    key: str, arguments: Mapping[str, Any], target: Callable[..., Any], *, injected: Collection[str] = ()
) -> dict[str, Any]:
    """Check the values of a node against a constructor and convert them to its types.

    Args:
        key: key of the node, such as `model`; empty for the root.
        arguments: values of the node, without `_target_` and the like.
        target: class or function to be called later.
        injected: parameters that the program passes.

    Returns:
        The converted arguments.

    Raises:
        ConfigError: an unknown key, a wrong type or a parameter without a value, named in one line with the way out.
    """
    parameters = parameters_of(target)
    hints = hints_of(target)
    converted: dict[str, Any] = {}
    for name, value in arguments.items():
        path = f"{key}.{name}" if key else name
        if name in injected:
            raise ConfigError(f"{path}={show(value)}: is set by the program; leave it out")
        if name not in parameters:
            if takes_any_keyword(target):
                converted[name] = value
                continue
            raise unknown_key(path, value, [f"{key}.{other}" if key else other for other in parameters])
        try:
            converted[name] = convert(value, hints.get(name, Any))
        except MismatchError as error:
            raise ConfigError(f"{path}={show(value)}: {error}") from None
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in converted and name not in injected:
            path = f"{key}.{name}" if key else name
            raise ConfigError(f"{path}: has no value; give one with {path}=…")
    return converted


def unknown_key(path: str, value: Any, known: Collection[str]) -> ConfigError:
    """Return the error for a key that does not exist, with its new name or the nearest keys that exist."""
    if path in RENAMED_KEYS:
        return ConfigError(f"{path}={show(value)}: is now called {RENAMED_KEYS[path]}; write that")
    parent, _, leaf = path.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == parent}
    # Keys of the same node first: a shared prefix such as `trainer.` makes unrelated keys look alike.
    close = [siblings[name] for name in nearest(leaf, siblings)]
    if not close:
        close = sorted(other for other in known if other.rpartition(".")[2] == leaf)
    if not close and not siblings:
        close = nearest(path, known)
    there = sorted(siblings.values()) or sorted(known)
    hint = f"nearest: {', '.join(close)}" if close else f"existing keys: {', '.join(there) or 'none'}"
    return ConfigError(f"{path}={show(value)}: no such key; {hint}")


def show(value: Any) -> str:
    """Return a value as a user types it after `key=`."""
    return " ".join(_show(value).splitlines())


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(_show(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{_show(item)}' for name, item in value.items())}}}"
    return str(value)


def convert(value: Any, hint: Any) -> Any:
    """Convert a value to a hinted type.

    Args:
        value: null, a bool, an int, a float, a text, a list or a mapping. Another object is returned as it is.
        hint: type hint. A hint that no YAML value can be checked against accepts everything.

    Raises:
        MismatchError: the value does not fit.
    """
    origin = typing.get_origin(hint)
    if origin is Literal:
        return _convert_literal(value, hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, hint)
    if origin is typing.Annotated:
        return convert(value, typing.get_args(hint)[0])
    plain = origin or hint
    if plain in _SCALARS:
        return _convert_scalar(value, plain)
    if plain is type(None):
        if value is None:
            return None
        raise MismatchError("not null")
    if plain in _MAPPINGS:
        return _convert_mapping(value, hint)
    if plain in _LISTS:
        return _convert_items(value, hint, is_tuple=plain is tuple)
    return value


def describe(hint: Any) -> str:
    """Return a description of a hinted type, such as `an int or null`."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return f"one of {', '.join(show(choice) for choice in typing.get_args(hint))}"
    if origin in (Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if _is_checkable(member)]
        return " or ".join(dict.fromkeys(describe(member) for member in members)) or "usable here"
    plain = origin or hint
    if plain in _SCALARS:
        return _SCALARS[plain]
    if plain is type(None):
        return "null"
    if plain in _MAPPINGS:
        return "a mapping"
    if plain in _LISTS:
        return "a list"
    return str(getattr(hint, "__name__", hint))


_SCALARS: dict[Any, str] = {
    bool: "a bool (true or false)",
    int: "an int",
    float: "a number",
    str: "a text",
    Path: "a path",
}
# Named one by one: by its methods, a Tensor or an open file is a collection too.
_LISTS = frozenset({list, tuple, Sequence, Collection, Iterable})
_MAPPINGS = frozenset({dict, Mapping, MutableMapping})


def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the type hints of a call of a target; a parameter whose hint cannot be resolved is left out."""
    function = inspect.unwrap(target.__init__) if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        # Names imported for the type checker alone cannot be evaluated; hints that are types already can be used.
        annotations = getattr(function, "__annotations__", {})
        return {name: hint for name, hint in annotations.items() if not isinstance(hint, str)}


def takes_text(hint: Any) -> bool:
    """Return whether a hint accepts a text or a path, but no number."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    return any(member in (str, Path) for member in members) and not any(member in (int, float) for member in members)


def _is_checkable(hint: Any) -> bool:
    plain = typing.get_origin(hint) or hint
    return plain in _SCALARS or plain in _LISTS or plain in _MAPPINGS or plain in (type(None), Literal)


def _convert_scalar(value: Any, plain: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if plain is bool and isinstance(value, bool):
        return value
    # Each comparison is false for NaN.
    if plain is int and number and not abs(value) < 2**63:
        raise MismatchError("must be a whole number below 2**63")
    if plain is float and number and not abs(value) <= sys.float_info.max:
        raise MismatchError("must be a finite number")
    if plain is int and number and int(value) == value:
        return int(value)
    if plain is float and number:
        return float(value)
    if plain in (str, Path) and (isinstance(value, str | Path) or number):
        return plain(str(value))
    raise MismatchError(f"not {_SCALARS[plain]}")


def _convert_literal(value: Any, hint: Any) -> Any:
    for choice in typing.get_args(hint):
        if type(choice) is type(value) and choice == value:
            return choice
    choices = [show(choice) for choice in typing.get_args(hint)]
    close = nearest(value, choices, count=1) if isinstance(value, str) else []
    raise MismatchError(f"not {describe(hint)}" + (f"; nearest: {close[0]}" if close else ""))


def _convert_union(value: Any, hint: Any) -> Any:
    members = typing.get_args(hint)
    checkable = [member for member in members if _is_checkable(member)]
    if not checkable:
        return value
    for member in checkable:
        # The exact type first: `int | str` must not turn the text "3" or the number 3 into the other.
        if type(value) is member:
            return convert(value, member)
    for member in checkable:
        try:
            return convert(value, member)
        except MismatchError as error:
            if " in it is " in str(error) or str(error).startswith("must be"):
                raise
    if len(checkable) < len(members) and not isinstance(value, str | int | float | bool | None):
        return value
    raise MismatchError(f"not {describe(hint)}")


def _convert_items(value: Any, hint: Any, *, is_tuple: bool) -> Any:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise MismatchError(f"not a list; write [{show(value)}]" if value is not None else "not a list")
    arguments = typing.get_args(hint)
    if is_tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise MismatchError(f"not a list of {len(arguments)} values")
        item_hints: Sequence[Any] = arguments
    else:
        item_hints = [arguments[0] if arguments else Any] * len(value)
    items = []
    for item, item_hint in zip(value, item_hints, strict=True):
        try:
            items.append(convert(item, item_hint))
        except MismatchError as error:
            raise MismatchError(f"{show(item)} in it is {error}") from None
    return tuple(items) if is_tuple else items


def _convert_mapping(value: Any, hint: Any) -> Any:
    if not isinstance(value, Mapping):
        raise MismatchError("not a mapping")
    arguments = typing.get_args(hint)
    item_hint = arguments[1] if len(arguments) == 2 and not isinstance(arguments[1], TypeVar) else Any
    converted = {}
    for name, item in value.items():
        try:
            converted[name] = convert(item, item_hint)
        except MismatchError as error:
            raise MismatchError(f"{name}:{show(item)} in it is {error}") from None
    return converted
