"""Commands in forks of the test process: nothing is imported anew, and a fork may be limited or killed."""

import contextlib
import importlib
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

LIMIT_SECONDS = 120
"""Seconds after which a command counts as hung; a loaded machine takes long for what usually takes two."""

MEMORY = 3 << 30
"""Bytes of memory beyond those of the test process that a command may ask for."""


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
        code: exit code; negative for a signal.
        errors: standard error.
        output: standard output.
    """

    code: int
    errors: str
    output: str

    @property
    def fault(self) -> str | None:
        """What no command line may lead to: a traceback, an unforeseen error, a crash, a hang; None if it did not."""
        last = self.errors.strip().splitlines()[-1:] or [""]
        if self.code == -signal.SIGALRM:
            return "hung"
        if self.code < 0 or self.code not in (0, 1, 2, 130, 143):
            return f"ended with {self.code}"
        if "Traceback" in self.errors or "--debug for the traceback" in self.errors:
            return "unforeseen error"
        if self.code in (1, 2) and not last[0].startswith("error: "):
            return "no line says why it failed"
        if len(last[0]) > 1000 or "\x1b[2J" in self.errors + self.output:
            return "text of unknown origin reached the terminal"
        return None


def run_command(
    words: Sequence[str], folder: Path, *, stdin: bytes = b"", limits: Sequence[tuple[int, int]] = ()
) -> Ending:
    """Run `tl-WORD …` in a fork.

    Args:
        words: the command without `tl-`, then its arguments.
        folder: working folder.
        stdin: standard input.
        limits: further resource limits and their values.
    """
    given = folder / ".stdin"
    given.write_bytes(stdin)
    module = importlib.import_module(f"torch_linguist.cli.{words[0]}")
    # Pipes, because a limit on the size of files would hit recorded output too.
    pipes = [os.pipe(), os.pipe()]
    child = os.fork()
    if child == 0:
        _work(
            lambda: module.main(list(words[1:])), folder, [os.open(given, os.O_RDONLY), *(w for _, w in pipes)], limits
        )
    for _, write_end in pipes:
        os.close(write_end)
    with ThreadPoolExecutor(2) as pool:
        output, errors = pool.map(_text, [read_end for read_end, _ in pipes])
    return Ending(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), errors, output)


def _work(work: Callable[[], int], folder: Path, streams: Sequence[int], limits: Sequence[tuple[int, int]]) -> NoReturn:
    """Do the work of a fork, which must never go on as its parent does."""
    code = 70
    try:
        os.chdir(folder)
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        os.closerange(3, 256)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, encoding="utf-8") for n, mode in enumerate("rww"))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT_SECONDS)
        used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        for limit, value in ((resource.RLIMIT_AS, used + MEMORY), (resource.RLIMIT_CORE, 0), *limits):
            resource.setrlimit(limit, (value, value))
        code = work()
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _text(descriptor: int) -> str:
    with os.fdopen(descriptor, "rb") as file:
        return file.read().decode("utf-8", "replace")
