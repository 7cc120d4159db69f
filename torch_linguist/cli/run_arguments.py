"""The arguments of the commands that work with finished runs: RUN and --output-dir, --data and --trust-data."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from torch_linguist.cli.entry import ArgumentParser, say
from torch_linguist.cli.option_types import Option, add_options, number, path, whole_number
from torch_linguist.runs.folders import find_run, is_arpa

if TYPE_CHECKING:
    from torch_linguist.data import Tokenizer
    from torch_linguist.model import LanguageModel

DATA_HELP = "another corpus: a choice of the group data, NAME:PATH for a local copy, or a file or folder of texts"

OUTPUT_DIR: Option = (path, Path("outputs"), "DIR", "parent of existing runs and new folders")

DEVICE: Option = (str, "auto", "NAME", "device of the models: auto (CUDA, or else the CPU), cpu, cuda:1, mps")

STRIDE: Option = (whole_number(), None, "N", "new tokens per window of a Transformer (default: half its context)")


def add_runs(parser: ArgumentParser, *, most: int | None = None, also: str = "") -> None:
    """Add RUN and --output-dir.

    Args:
        parser: parser of the command.
        most: largest number of runs; None for no limit.
        also: further kinds of RUN besides a run folder, such as an exported file.
    """
    takes = "a run" if most == 1 else "one or two runs" if most == 2 else "runs"
    parser.add_argument(
        "runs", nargs="?" if most == 1 else "*", type=path, metavar="RUN",
        help=f"{takes}: folder, or name under --output-dir, or ARPA file{also} (default: the newest run)",
    )  # fmt: skip
    add_options(parser, None, {"--output-dir": OUTPUT_DIR})


def find_runs(arguments: Namespace, *, to_stderr: bool = False) -> list[Path]:
    """Return the run folders in `arguments.runs`; without any, print and return the newest one."""
    named = arguments.runs if isinstance(arguments.runs, list) else [arguments.runs] if arguments.runs else []
    if named:
        return [find_run(one, arguments.output_dir) for one in named]
    newest = find_run(None, arguments.output_dir)
    say(f"run: {newest} (the newest)", to_stderr=to_stderr)
    return [newest]


def find_model(arguments: Namespace) -> "tuple[LanguageModel, Tokenizer]":
    """Load the model of the run or `.jit` file in `arguments.runs`, or of the newest run.

    A run goes to `arguments.device`; an exported file stays on the CPU.
    """
    named = arguments.runs
    if named is not None and named.is_file() and not is_arpa(named):
        from torch_linguist.export import load_jit

        exported = load_jit(named)
        return exported.model, exported.tokenizer
    (folder,) = find_runs(arguments, to_stderr=True)

    from torch_linguist.checkpoint.loaded_run import load_run

    run = load_run(folder, device=arguments.device)
    return run.model, run.tokenizer


def add_trust(parser: ArgumentParser) -> None:
    """Add --trust-data."""
    text = "open the corpus that the run names, even if you have not used it here"
    add_options(parser, None, {}, {"--trust-data": text})


def add_weights(parser: ArgumentParser, text: str) -> None:
    """Add --weights, the weights of a mixture; `text` is its help."""
    parser.add_argument("--weights", nargs="+", type=number(0), metavar="X", help=text)


def check_weights(parser: ArgumentParser, arguments: Namespace) -> None:
    """Report an error unless `--weights` is absent or has one weight per run."""
    runs = max(len(arguments.runs), 1)
    if arguments.weights is not None and len(arguments.weights) != runs:
        parser.error(f"--weights: {len(arguments.weights)} weights for {runs} runs")
