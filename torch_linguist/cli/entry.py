"""What all commands share: how arguments are read, how a command ends and what a person then sees.

Exit codes: 0 success; 1 it failed; 2 wrong usage; 130 interrupted (143 by SIGTERM).
"""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from torch_linguist.distributed.torchrun import launched_rank
from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.runs.output_encoding import tolerate_encoding

SUCCESS = 0
FAILURE = 1
USAGE = 2
INTERRUPTED = 128 + signal.SIGINT

GOMP_SPINCOUNT = "10000"
"""How long torch's OpenMP threads wait for each other awake. Its own default lets them burn each other's cores for
milliseconds where other processes share the machine (measured: a step of the LSTM 1.3 to 2 times slower with two busy
neighbors); this costs nothing on a quiet one. It must be set before torch is imported."""

HUGE_PAGES = "1"
"""Whether torch asks the kernel for huge pages (THP_MEM_ALLOC_ENABLE): it spares a page fault for each 4 KiB of the
tens of megabytes that a training step allocates anew; a step of the LSTM took 1.1 to 1.5 times as long without."""

LONGEST_LINE = 800
"""Characters of an error that are shown."""

Command = Callable[[list[str]], int]


class ArgumentParser(argparse.ArgumentParser):
    """argparse whose complaints are one line, like every other error of the commands."""

    def __init__(self, prog: str, description: str, epilog: str | None = None, add_help: bool = True) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            add_help=add_help,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        """Raises the complaint instead of printing the usage and leaving."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def run_command(command: Command, argv: Sequence[str] | None = None) -> int:
    """Runs a command and turns whatever it ends with into an exit code and at most one line on standard error.

    `--debug` among the arguments, or HYDRA_FULL_ERROR=1, shows the traceback before that line.

    Args:
        command: takes the arguments, returns an exit code.
        argv: the arguments; None for those of the process.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        tolerate_encoding(stream)
    os.environ.setdefault("GOMP_SPINCOUNT", GOMP_SPINCOUNT)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", HUGE_PAGES)
    debug = "--debug" in arguments or os.environ.get("HYDRA_FULL_ERROR", "") not in ("", "0")
    try:
        code = command(arguments)
        sys.stdout.flush()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else SUCCESS if leaving.code is None else FAILURE
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        # Whoever caught the signal says which one it was.
        return 128 + int(getattr(error, "signal_number", signal.SIGINT))
    except BrokenPipeError:
        # Whoever read our output (`| head`) has left; the interpreter's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:  # noqa: BLE001 - the last line of defense: every failure ends as one line
        if debug:
            traceback.print_exc()
        # Of several processes each meets the same mistake of usage: one of them tells.
        if not (isinstance(error, ConfigError) and launched_rank()):
            print(f"error: {describe(error)}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else FAILURE
    return code


def describe(error: Exception) -> str:
    """An error as one line for a person: ours as they are, others with their type and the way to the traceback."""
    if isinstance(error, LinguistError):
        line = " ".join(str(error).split("\n"))
        # A damaged file may be quoted; what is wrong stands at the beginning, the way out at the end.
        return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} … {line[-LONGEST_LINE // 2 :]}"
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror}"
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if message else ''}{message}; run again with --debug for the traceback"


__all__ = ["FAILURE", "INTERRUPTED", "SUCCESS", "USAGE", "ArgumentParser", "describe", "run_command"]
