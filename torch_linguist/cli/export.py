"""`tl-export`: the best model of a run, or a mixture, as files that run where torch_linguist is not installed."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command
from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.export.export_format import ExportFormat, export_formats
from torch_linguist.runs.folders import find_run

if TYPE_CHECKING:
    from torch_linguist.checkpoint.loaded_run import LoadedRun
    from torch_linguist.data import TokenStream
    from torch_linguist.model import LanguageModel

CHECK_TOKENS = 5000

EXAMPLES = """\
examples:
  tl-export --jit                            the newest run under outputs/
  tl-export outputs/my-run --jit --onnx      several formats of a run of your choice
  tl-export outputs/my-run --jit --output my-model.jit
  tl-export outputs/my-run --quantize int8   eight-bit weights: size, speed and perplexity before and after
  tl-export outputs/lstm outputs/ngram --jit the mixture of both, weights fitted on valid
  tl-export outputs/lstm outputs/ngram --html
                                             a page in which both work side by side, without a network

A .jit file maps text to text with torch alone: torch.jit.load(FILE).generate("The", 50). It holds tokenizer.json,
vocabulary.json and settings.json. Each file is compared with the model on several shapes before it is kept, then on a
text: the perplexity must be equal to five digits. MODEL_CARD.md is written beside the file.

exit codes: 0 written; 1 failed; 2 wrong usage; 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `tl-export`.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command(_export, argv)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-export", "Exports the best model of a run.", EXAMPLES)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="a run folder (default: the newest one)")
    formats = export_formats()
    for one in formats:
        if one.is_exact:
            parser.add_argument(f"--{one.name}", action="store_true", help=f"{one.help} (RUN/{one.file_name})")
    inexact = {one.name: f"{one.name}: {one.help} (RUN/{one.file_name})" for one in formats if not one.is_exact}
    parser.add_argument(
        "--html", action="store_true", help="a page in which the models of the runs work side by side (RUN/model.html)"
    )
    parser.add_argument("--prompt", default="", metavar="TEXT", help="with --html: the text that the page begins with")
    parser.add_argument("--quantize", choices=list(inexact), help="; ".join(inexact.values()))
    parser.add_argument(
        "--weights", nargs="+", type=float, metavar="X", help="weights of a mixture (default: fitted on valid by EM)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="path of the file")
    parser.add_argument(
        "--check-tokens",
        type=int,
        default=CHECK_TOKENS,
        metavar="N",
        help=f"tokens of test to compare the perplexity on; 0 skips the comparison ({CHECK_TOKENS:,})",
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), metavar="DIR", help="folder of the newest run"
    )
    return parser


def _export(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    known = export_formats()
    formats = [one for one in known if one.name == arguments.quantize or getattr(arguments, one.name, False)]
    if not formats and not arguments.html:
        options = ", ".join(f"--{one.name}" for one in known if one.is_exact)
        parser.error(f"choose a format: {options} or --quantize int8")
    requested = len(formats) + arguments.html
    if arguments.output is not None and requested > 1:
        parser.error(f"--output={arguments.output}: names one file, but {requested} formats are requested")
    if arguments.check_tokens < 0:
        parser.error(f"--check-tokens={arguments.check_tokens}: must be at least 0")
    if len(arguments.runs) > 1 and not all(one.takes_mixtures for one in formats):
        parser.error("a mixture of runs is written by --jit alone")
    if arguments.weights is not None and len(arguments.weights) != max(len(arguments.runs), 1):
        parser.error(f"--weights: {len(arguments.weights)} weights for {max(len(arguments.runs), 1)} runs")
    folders = [find_run(named, arguments.output_dir) for named in arguments.runs or [None]]
    if not arguments.runs:
        print(f"run: {folders[0]} (the newest)")
    if arguments.html:
        _write_page(folders, arguments)
    if formats:
        _write(folders, formats, arguments, shlex.join(["tl-export", *argv]))
    return SUCCESS


def _write_page(folders: Sequence[Path], arguments: Namespace) -> None:
    from torch_linguist.checkpoint.loaded_run import load_run
    from torch_linguist.export.html import write_runs_page

    path = arguments.output or folders[0] / "model.html"
    runs = [load_run(folder) for folder in folders]
    size = write_runs_page(runs, path, arguments.prompt, arguments.weights)
    print(f"{path}: {size / 2**20:.1f} MiB; open it in a browser, it needs nothing else")


def _write(folders: Sequence[Path], formats: Sequence[ExportFormat], arguments: Namespace, command: str) -> None:
    from torch_linguist.checkpoint.loaded_run import load_run
    from torch_linguist.export.exporting import SUMMARY_KEYS, export_file
    from torch_linguist.export.model_card import model_card
    from torch_linguist.generation import generate
    from torch_linguist.runs.files import write_text

    runs = [load_run(folder) for folder in folders]
    tokenizer, status = runs[0].tokenizer, runs[0].summary.get("status")
    if status != "finished":
        print(f"note: the run has not finished (status {status or 'unknown'}); its best model so far is exported")
    stream = _checked_stream(runs[0]) if arguments.check_tokens else None
    model, summary = (runs[0].model, dict(runs[0].summary)) if len(runs) == 1 else _mixture(runs, arguments)
    settings = {key: summary[key] for key in SUMMARY_KEYS if key in summary}
    place = arguments.output.parent if arguments.output is not None else folders[0]
    files = []
    for one in formats:
        path = arguments.output or place / ("mixture.jit" if len(runs) > 1 else one.file_name)
        file = export_file(one, model, tokenizer, path, settings, stream=stream, max_tokens=arguments.check_tokens)
        print(f"{path}: {file.report.mebibytes:.1f} MiB; {file.facts}")
        files.append(file)
    sample = generate(model, tokenizer, "", max_tokens=40, top_p=0.9, seed=1)[0]
    title = folders[0].resolve().name if len(runs) == 1 else "Mixture of " + ", ".join(one.name for one in folders)
    write_text(place / "MODEL_CARD.md", model_card(title, summary, command, files, sample))
    print(f"{place / 'MODEL_CARD.md'}: data, scores, command, limits")


def _mixture(runs: "Sequence[LoadedRun]", arguments: Namespace) -> "tuple[LanguageModel, dict[str, Any]]":
    """The mixture as one model, and what is known of it."""
    import numpy as np

    from torch_linguist.evaluation import stream_nll
    from torch_linguist.evaluation.mixture_scoring import fitted_weights
    from torch_linguist.model import Mixture

    for run in runs[1:]:
        if run.tokenizer.to_json() != runs[0].tokenizer.to_json():
            raise ConfigError(
                f"{run.folder} has another tokenizer than {runs[0].folder}; train both on the same tokens"
            )
    weights = arguments.weights
    if weights is None:
        valid = _stream(runs[0], "valid")
        weights = fitted_weights([np.concatenate(list(stream_nll(run.model, valid))) for run in runs])
    shares = ", ".join(f"{weight:.3f} {run.folder.name}" for weight, run in zip(weights, runs, strict=True))
    print(f"mixture{'' if arguments.weights else ', fitted on valid'}: {shares}")
    summary: dict[str, Any] = {"model": f"mixture ({shares})"}
    summary |= {key: value for key, value in runs[0].summary.items() if key in ("data", "tokenizer", "vocab_size")}
    return Mixture([run.model for run in runs], weights).eval(), summary


def _stream(run: "LoadedRun", split: str) -> "TokenStream":
    from torch_linguist.config.named_corpus import find_corpus
    from torch_linguist.data import prepare

    return prepare(find_corpus(None, run.folder), None, tokenizer=run.tokenizer).streams[split]


def _checked_stream(run: "LoadedRun") -> "TokenStream | None":
    """The test split; None, which is said, where the corpus is not at hand."""
    try:
        return _stream(run, "test")
    except LinguistError as error:
        print(f"note: the perplexity is not compared, the corpus of the run cannot be read ({error})")
        return None


if __name__ == "__main__":
    sys.exit(main())
