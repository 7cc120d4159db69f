"""What all commands share: reading arguments, printing, and how a command ends.

Exit codes: 0 success; 1 failure; 2 wrong usage; 130 interrupted (143 by SIGTERM); 141 if nobody reads the output any
more (`| head`). Each command has a function `main` that takes its arguments (None for those of the process) and returns
the exit code.
"""

import argparse
import os
import signal
import sys
import threading
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from torch_linguist.cli.option_types import path
from torch_linguist.distributed.torchrun import launched_rank
from torch_linguist.errors import ConfigError, describe
from torch_linguist.runs.output_encoding import tolerate_encoding
from torch_linguist.runs.visible_text import visible

if TYPE_CHECKING:
    from torch_linguist.config.help_page import CommandText

SUCCESS = 0
FAILURE = 1
USAGE = 2
INTERRUPTED = 128 + signal.SIGINT
UNREAD = 141
"""Exit code of a command whose output nobody reads any more: 128 + SIGPIPE, what a shell shows for other tools."""

GOMP_SPINCOUNT = "10000"
"""How long torch's OpenMP threads wait actively for each other. By default they occupy each other's cores for
milliseconds when other processes share the machine (an LSTM step took 1.3 to 2 times as long beside two busy
processes); on an idle machine this setting costs nothing. It must be set before torch is imported."""

HUGE_PAGES = "1"
"""Whether torch requests huge pages (THP_MEM_ALLOC_ENABLE). They avoid a page fault per 4 KiB of the tens of megabytes
that each training step allocates; without them an LSTM step took 1.1 to 1.5 times as long."""

EXIT_CODES = "exit codes: 0 success; 1 failure; 2 wrong usage; 130 interrupted"
"""Last line of a help page."""

Command = Callable[[list[str]], int]


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line, like every other error of the commands."""

    def __init__(self, prog: str, description: str, epilog: str | None = None, add_help: bool = True) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"{epilog}\n\n{EXIT_CODES}" if epilog else None,
            add_help=add_help,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError instead of printing the usage and exiting."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def say(text: str = "", *, end: str = "\n", to_stderr: bool = False) -> None:
    """Print a text at once, with its control characters made visible."""
    print(visible(text), end=end, file=sys.stderr if to_stderr else sys.stdout, flush=True)


def parse_arguments(text: "CommandText", argv: Sequence[str]) -> Namespace:
    """Read the arguments of a command that takes overrides.

    Returns:
        The values of OVERRIDE, --config-dir, --cfg, --help, --debug and the command's flags.

    Raises:
        ConfigError: an option does not exist.
    """
    parser = ArgumentParser(text.name, text.about, add_help=False)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    parser.add_argument("--config-dir", action="append", type=path, default=[], metavar="DIR")
    parser.add_argument("--cfg", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    for flag in text.flags:
        parser.add_argument(flag, action="store_true")
    return parser.parse_intermixed_args(argv)


def run_command(command: Command, argv: Sequence[str] | None = None) -> int:
    """Run a command; turn every ending into an exit code and at most one line on standard error.

    `--debug` among the arguments, or HYDRA_FULL_ERROR=1, shows the traceback before that line.

    Args:
        command: called with the arguments; returns an exit code.
        argv: the arguments; None for those of the process.

    Returns:
        The exit code.
    """
    if argv is None and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        tolerate_encoding(stream)
    os.environ.setdefault("GOMP_SPINCOUNT", GOMP_SPINCOUNT)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", HUGE_PAGES)
    debug = "--debug" in arguments or os.environ.get("HYDRA_FULL_ERROR", "") not in ("", "0")
    if not debug:
        threading.excepthook = _report_thread
    try:
        for argument in arguments:
            _check_text(argument)
        code = command(arguments)
        sys.stdout.flush()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else SUCCESS if leaving.code is None else FAILURE
    except KeyboardInterrupt as error:
        say("interrupted", to_stderr=True)
        # Whoever caught the signal recorded its number.
        return 128 + int(getattr(error, "signal_number", signal.SIGINT))
    except BrokenPipeError:
        # The reader of our output (`| head`) is gone. The interpreter's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except Exception as error:  # noqa: BLE001 - the last line of defense: every failure ends as one line
        if debug:
            traceback.print_exc()
        # Every process of a distributed training meets the same usage error; one of them reports it.
        if not (isinstance(error, ConfigError) and launched_rank()):
            say(f"error: {describe(error)}", to_stderr=True)
        return USAGE if isinstance(error, ConfigError) else FAILURE
    return code


def _report_thread(ended: threading.ExceptHookArgs) -> None:
    """Report the error that ended a thread of a library as one line."""
    if isinstance(ended.exc_value, Exception):
        say(f"note: a thread ended: {describe(ended.exc_value)}", to_stderr=True)


def _check_text(argument: str) -> None:
    try:
        os.fsencode(argument)
    except UnicodeEncodeError as error:
        raise ConfigError(f"{argument!r}: holds half a character, which no file or text can have") from error
    if "\0" in argument:
        raise ConfigError(f"{argument!r}: holds a zero character, which no file or text can have")
