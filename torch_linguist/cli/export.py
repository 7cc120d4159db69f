"""`tl-export`: a run's best model as one file that runs where torch_linguist is not installed."""

import sys
from collections.abc import Sequence
from pathlib import Path

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command
from torch_linguist.cli.runs import find_run

KEPT = ("model", "data", "tokenizer", "parameters", "seed", "lr", "weight_decay", "versions", "valid", "test")
"""What of a run's summary the file carries."""

EXAMPLES = """\
examples:
  tl-export --jit                       the newest run under outputs/
  tl-export outputs/my-run --jit        a run of your choice
  tl-export outputs/my-run --jit --output my-model.jit

The file loads with torch.jit.load alone, takes any batch size and length, and holds tokenizer.json, vocabulary.json
and settings.json as extra files. Its outputs are compared with the model's own before it is kept.

exit codes: 0 written; 1 failed; 2 wrong usage; 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `tl-export`.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command(_export, argv)


def _export(argv: list[str]) -> int:
    parser = ArgumentParser("tl-export", "Exports the best model of a run.", EXAMPLES)
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="a run folder (default: the newest one)")
    parser.add_argument("--jit", action="store_true", help="as TorchScript, RUN/model.jit")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), metavar="DIR", help="where the newest run is looked for"
    )
    arguments = parser.parse_intermixed_args(argv)
    if not arguments.jit:
        parser.error("say what to make: --jit")
    run = find_run(arguments.run, arguments.output_dir)
    if arguments.run is None:
        print(f"run: {run} (the newest)")
    return _export_jit(run, arguments.output or run / "model.jit")


def _export_jit(folder: Path, path: Path) -> int:
    from torch_linguist.export import export_jit
    from torch_linguist.run import load_run

    run = load_run(folder)
    settings = {key: run.summary[key] for key in KEPT if key in run.summary}
    report = export_jit(run.model, run.tokenizer, path, settings)
    print(f"{report.path}: {report.mebibytes:.1f} MiB, within {report.difference:.1g} nats of the eager model")
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
