"""Run a command in a pseudo-terminal and save its output as SVG (rich's export).

    python scripts/documentation/record_terminal.py docs/images/default-run.svg -- tl-train name=default
    python scripts/documentation/record_terminal.py generated.svg --width 80 -- tl-generate -p "The war"

The command runs in a pseudo-terminal, so that it prints what a person sees: colors, tables, progress bars. What it
overwrites (a progress bar that moves) is left out, as on the screen. Works on Linux and macOS.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>()][A-Z0-9]?")


class Screen:
    """Terminal of unlimited height that keeps the output of a program as lines.

    Understands what rich prints: new lines, carriage returns, colors, and moving up to write over earlier lines.
    """

    def __init__(self) -> None:
        self.lines: list[list[tuple[str, str]]] = [[]]
        self._row = 0
        self._column = 0
        self._style = ""

    def write(self, text: str) -> None:
        """Process the output of a program."""
        position = 0
        for match in SEQUENCE.finditer(text):
            self._write_plain(text[position : match.start()])
            if match[2]:
                self._control(match[1], match[2])
            position = match.end()
        self._write_plain(text[position:])

    def text(self) -> str:
        """Return the screen as lines with color sequences."""
        shown = []
        for line in self.lines:
            parts, before = [], ""
            for character, style in line:
                parts.append((f"\x1b[0m{style}" if style != before else "") + character)
                before = style
            shown.append("".join(parts).rstrip() + ("\x1b[0m" if before else ""))
        return "\n".join(shown).rstrip()

    def _write_plain(self, text: str) -> None:
        for character in text:
            if character == "\n":
                self._move_to(self._row + 1)
                self._column = 0
            elif character == "\r":
                self._column = 0
            elif character >= " ":
                line = self.lines[self._row]
                line.extend([(" ", "")] * (self._column - len(line)))
                line[self._column : self._column + 1] = [(character, self._style)]
                self._column += 1

    def _control(self, arguments: str, name: str) -> None:
        number = int(arguments) if arguments.isdigit() else 0
        if name == "m":
            self._style = "" if arguments in ("", "0") else f"{self._style}\x1b[{arguments}m"
        elif name in "AB":
            step = max(number, 1)
            self._move_to(max(self._row + (step if name == "B" else -step), 0))
        elif name == "G":
            self._column = max(number, 1) - 1
        elif name == "K":
            line = self.lines[self._row]
            line[:] = [] if number == 2 else line[: self._column]

    def _move_to(self, row: int) -> None:
        self._row = row
        self.lines.extend([] for _ in range(row + 1 - len(self.lines)))


def run_in_terminal(command: list[str], width: int, height: int) -> tuple[str, int]:
    """Run a command in a pseudo-terminal.

    Args:
        command: the command and its arguments.
        width: columns of the terminal.
        height: rows of the terminal.

    Returns:
        All output, with control sequences, and the exit code.
    """
    import fcntl
    import pty
    import struct
    import termios

    main, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": str(width)}
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment, close_fds=True)
    os.close(child)
    parts = []
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # Linux reports the end of a pseudo-terminal as an input/output error.
            break
        if not part:
            break
        parts.append(part)
    os.close(main)
    return b"".join(parts).decode(errors="replace"), process.wait()


def to_svg(output: str, width: int, title: str) -> str:
    """Draw terminal output as SVG.

    Args:
        output: output of a program, with control sequences.
        width: columns of the picture.
        title: text in the title bar.
    """
    screen = Screen()
    screen.write(output)
    console = Console(record=True, width=width, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(screen.text()), soft_wrap=False)
    picture = console.export_svg(title=title)
    # rich's template loads a font from the web; the picture has to work without a network.
    picture = re.sub(r"@font-face\s*\{[^}]*\}", "", picture)
    return picture.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")


def main(arguments: list[str] | None = None) -> int:
    """Record a command; return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("svg", type=Path, help="file to write")
    parser.add_argument("--width", type=int, default=96, help="columns of the terminal (default: 96)")
    parser.add_argument("--height", type=int, default=60, help="rows of the terminal (default: 60)")
    parser.add_argument("--title", help="text in the title bar (default: the command)")
    parser.add_argument("command", nargs="+", help="command and arguments, after --")
    options = parser.parse_args(arguments)
    output, code = run_in_terminal(options.command, options.width, options.height)
    if code:
        print(output, file=sys.stderr)
        return code
    title = options.title or shlex.join(options.command)
    options.svg.parent.mkdir(parents=True, exist_ok=True)
    options.svg.write_text(to_svg(output, options.width, title), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
