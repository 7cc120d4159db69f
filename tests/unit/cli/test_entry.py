"""How a command ends: exit codes, and the one line that a person sees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torch_linguist.cli.entry import ArgumentParser, run_command
from torch_linguist.errors import ConfigError, DataError, LinguistError, describe

EXHAUSTED, SMALLER = "error: the machine ran out of resources", "close other programs, or choose smaller sizes"


def ending(error: BaseException, *argv: str) -> int:
    """The exit code of a command that raises this."""

    def command(arguments: list[str]) -> int:
        raise error

    return run_command(command, argv)


@pytest.fixture(autouse=True)
def no_full_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("a=1: wrong"), 2, "error: a=1: wrong\n"),
        (LinguistError("cannot go on"), 1, "error: cannot go on\n"),
        (DataError("two\nlines"), 1, "error: two lines\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 1, "error: a.txt: No such file or directory\n"),
        (RuntimeError("odd\nthing"), 1, "error: RuntimeError: odd thing; run again with --debug for the traceback\n"),
        (
            OSError(28, "No space left on device", "b.pt"),
            1,
            "error: b.pt: No space left on device; free some space, or write to another folder\n",
        ),
        (MemoryError(), 1, f"{EXHAUSTED} (out of memory); {SMALLER}\n"),
        (OSError(24, "Too many open files", "a.txt"), 1, f"{EXHAUSTED} (Too many open files); {SMALLER}\n"),
        (LinguistError("\x1b[2Jgone\x07"), 1, "error: ␛[2Jgone␇\n"),
        (RuntimeError("\x9b2J"), 1, "error: RuntimeError: \\x9b2J; run again with --debug for the traceback\n"),
        (AssertionError(), 1, "error: AssertionError; run again with --debug for the traceback\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (SystemExit(3), 3, ""),
        (SystemExit(), 0, ""),
    ],
)
def test_each_ending_has_its_code_and_its_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(error) == code
    assert capsys.readouterr().err == line


def test_success_hands_the_code_on() -> None:
    assert run_command(lambda arguments: 0, []) == 0
    assert run_command(lambda arguments: len(arguments), ["a", "b"]) == 2


def test_the_traceback_is_shown_on_demand(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ending(LinguistError("x"), "--debug")
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    ending(LinguistError("x"))
    output = capsys.readouterr().err
    assert "Traceback" in output
    assert output.endswith("error: x\n")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    ending(LinguistError("x"))
    assert capsys.readouterr().err == "error: x\n"


def test_wrong_options_are_one_line() -> None:
    parser = ArgumentParser("tl-thing", "Does a thing.")
    with pytest.raises(ConfigError, match=r"^unrecognized arguments: --nope; see tl-thing --help$"):
        parser.parse_args(["--nope"])


def test_an_error_without_words_is_still_described() -> None:
    assert describe(ValueError()) == "ValueError; run again with --debug for the traceback"
    assert describe(OSError("plain")) == "OSError: plain; run again with --debug for the traceback"


def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path: Path) -> None:
    script = tmp_path / "chatter.py"
    script.write_text(
        "import sys\n"
        "from torch_linguist.cli.entry import run_command\n"
        "def command(argv):\n"
        "    for number in range(100000): print(number)\n"
        "    return 0\n"
        "sys.exit(run_command(command))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141  # As a shell reports a program that SIGPIPE ended.


@pytest.mark.parametrize(("argument", "what"), [("\ud800", "half a character"), ("name=a\0b", "a zero character")])
def test_what_no_file_name_can_hold_is_refused(argument: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda argv: 0, [argument]) == 2
    assert f"holds {what}" in capsys.readouterr().err


def test_an_interrupt_during_the_imports_of_a_command_leaves_no_traceback() -> None:
    script = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # A background job of a shell inherits `ignore`.
        "sys.argv[0] = '/somewhere/bin/tl-train'\n"
        "import torch_linguist.cli\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")
