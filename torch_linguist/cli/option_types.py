"""Tables of options, and their types: numbers with a range, and paths that may begin with `~`."""

import math
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from torch_linguist.errors import ConfigError

Option: TypeAlias = tuple[Callable[[str], object], object, str, str]
"""An option with a value: its type, default, placeholder and help."""

LARGEST_COUNT = 10**9
LARGEST_SEED = 2**63 - 1


def add_options(
    parser: ArgumentParser, title: str | None, options: Mapping[str, Option], flags: Mapping[str, str] | None = None
) -> None:
    """Add options to a parser.

    Args:
        parser: parser of the command.
        title: title of the options' group on the help page; None for no group.
        options: options with a value, by name (`-n, --samples` for two names). The help shows a default that is
            neither None nor empty.
        flags: flags with their help.
    """
    group = parser.add_argument_group(title) if title else parser
    for name, (kind, default, placeholder, text) in options.items():
        shown = f"{default:,}" if type(default) is int else f"{default:g}" if type(default) is float else default
        note = "" if default in (None, "") else f" (default: {shown})"
        group.add_argument(
            *name.split(", "), type=kind, default=default, metavar=placeholder, help=(text + note).replace("%", "%%")
        )
    for name, text in (flags or {}).items():
        group.add_argument(name, action="store_true", help=text)


def whole_number(least: int = 1, most: int = LARGEST_COUNT) -> Callable[[str], int]:
    """Return a function that reads a whole number in a range, both ends included."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ArgumentTypeError(f"{text}: not a whole number; must be between {least} and {most:,}") from None
        if not least <= value <= most:
            raise ArgumentTypeError(f"{text}: must be between {least} and {most:,}")
        return value

    return read


def number(least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf) -> Callable[[str], float]:
    """Return a function that reads a finite number in a range.

    Args:
        least: smallest value.
        most: largest value.
        above: number that the value must exceed.
    """
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("at least", least), ("greater than", above), ("at most", most))
        if math.isfinite(bound)
    ]
    expected = " ".join(["a finite number", " and ".join(bounds)]).strip()

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ArgumentTypeError(f"{text}: not a number; must be {expected}") from None
        if not (math.isfinite(value) and least <= value <= most and value > above):
            raise ArgumentTypeError(f"{text}: must be {expected}")
        return value

    return read


def path(text: str) -> Path:
    """Return a path; `~` is the home folder, also in `--option=~/file`, which shells leave as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ArgumentTypeError(f"{text}: there is no home folder; write the whole path") from None


def check_output(option: str, to: Path | None, inputs: Iterable[Path | str]) -> None:
    """Check that an output file is none of the files that are read, under whatever name.

    Args:
        option: name of the output's option, for the message.
        to: path of the output file; None for none.
        inputs: files that are read; `-` for standard input.

    Raises:
        ConfigError: the output file is one of them.
    """
    if to is None or not to.is_file():
        return
    for given in inputs:
        try:
            read = os.fstat(sys.stdin.fileno()) if str(given) == "-" else Path(given).stat()
        except (OSError, ValueError):
            continue  # Reading it will say what is wrong.
        if os.path.samestat(read, to.stat()):
            raise ConfigError(f"{option}={to}: is one of the files that are read; name another file")
