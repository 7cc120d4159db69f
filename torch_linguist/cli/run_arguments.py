"""The arguments of the commands that work with finished runs: RUN and --output-dir, --data and --trust-data."""

from argparse import Namespace
from pathlib import Path

from torch_linguist.cli.entry import ArgumentParser, say
from torch_linguist.cli.option_types import path
from torch_linguist.runs.folders import find_run

DATA_HELP = "another corpus: a choice of the group data, NAME:PATH for a local copy, or a file or folder of texts"


def add_runs(parser: ArgumentParser, *, most: int | None = None, also: str = "") -> None:
    """Add RUN and --output-dir.

    Args:
        parser: the parser of the command.
        most: largest number of runs; None for no limit.
        also: what RUN may be besides a run folder, such as an exported file.
    """
    takes = "a run" if most == 1 else "one or two runs" if most == 2 else "runs"
    parser.add_argument(
        "runs", nargs="?" if most == 1 else "*", type=path, metavar="RUN",
        help=f"{takes}: folder, or name under --output-dir{also} (default: the newest run)",
    )  # fmt: skip
    parser.add_argument(
        "--output-dir", type=path, default=Path("outputs"), metavar="DIR",
        help="where runs are looked for and new folders are made (default: outputs)",
    )  # fmt: skip


def find_runs(arguments: Namespace, *, to_stderr: bool = False) -> list[Path]:
    """Return the run folders that `arguments.runs` names, or the newest one, and say which that is."""
    named = arguments.runs if isinstance(arguments.runs, list) else [arguments.runs] if arguments.runs else []
    if named:
        return [find_run(one, arguments.output_dir) for one in named]
    newest = find_run(None, arguments.output_dir)
    say(f"run: {newest} (the newest)", to_stderr=to_stderr)
    return [newest]


def add_trust(parser: ArgumentParser) -> None:
    """Add --trust-data."""
    parser.add_argument(
        "--trust-data",
        action="store_true",
        help="open the corpus that the run names, even if you have not used it here",
    )
