"""The commands: they parse, instantiate and call."""

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn


def _leave(*_: Any) -> NoReturn:
    os.write(2, b"interrupted\n")
    os._exit(128 + signal.SIGINT)


_is_command = Path(sys.argv[0]).name.startswith("tl-") or sys.argv[0] == "-m"
if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # While a command imports what it needs, Ctrl-C would end in a traceback. `run_command` takes over from here.
    signal.signal(signal.SIGINT, _leave)
