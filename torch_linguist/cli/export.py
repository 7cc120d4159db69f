"""`tl-export`: the best model of a run, or a mixture, as files that run where torch_linguist is not installed."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command
from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.runs.folders import find_run

if TYPE_CHECKING:
    from torch_linguist.checkpoint.loaded_run import LoadedRun
    from torch_linguist.data import TokenStream
    from torch_linguist.export import ExportReport, ForeignModel
    from torch_linguist.model import LanguageModel

KEPT = ("model", "data", "tokenizer", "parameters", "seed", "lr", "weight_decay", "versions", "valid", "test")
"""What of a run's summary the file carries."""

NAMES = {"jit": "model.jit", "pt2": "model.pt2", "onnx": "model.onnx", "int8": "model.int8.jit"}

CHECK_TOKENS = 5000

DIGITS = 1e-5
"""Relative difference of perplexities that are equal to five digits."""

EXAMPLES = """\
examples:
  tl-export --jit                            the newest run under outputs/
  tl-export outputs/my-run --jit --onnx      several formats of a run of your choice
  tl-export outputs/my-run --jit --output my-model.jit
  tl-export outputs/my-run --quantize int8   eight-bit weights: size, speed and perplexity before and after
  tl-export outputs/lstm outputs/ngram --jit the mixture of both, weights fitted on valid

--jit   takes any batch size and length, and text: torch.jit.load(FILE).generate("The", 50), with torch alone; it holds
        tokenizer.json, vocabulary.json and settings.json. Every model, and mixtures.
--pt2   torch.export; any batch size and length (model=rnn: one token a call). Neural models.
--onnx  any batch size and length; needs pip install "torch-linguist[onnx]". Neural models.

Each file is compared with the model on several shapes before it is kept, then on a text: the perplexity must be equal
to five digits. MODEL_CARD.md is written beside it.

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
    parser.add_argument("--jit", action="store_true", help="as TorchScript, RUN/model.jit")
    parser.add_argument("--pt2", action="store_true", help="by torch.export, RUN/model.pt2")
    parser.add_argument("--onnx", action="store_true", help="as ONNX, RUN/model.onnx")
    parser.add_argument("--quantize", choices=["int8"], help="as TorchScript in eight bits, RUN/model.int8.jit")
    parser.add_argument("--weights", nargs="+", type=float, metavar="X", help="of a mixture (default: by EM on valid)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead")
    parser.add_argument(
        "--check-tokens",
        type=int,
        default=CHECK_TOKENS,
        metavar="N",
        help=f"tokens of test that the perplexity is compared on; 0 for none ({CHECK_TOKENS:,})",
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), metavar="DIR", help="where the newest run is looked for"
    )
    return parser


def _export(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    formats = [name for name in ("jit", "pt2", "onnx") if getattr(arguments, name)]
    formats += ["int8"] if arguments.quantize else []
    if not formats:
        parser.error("say what to make: --jit, --pt2, --onnx or --quantize int8")
    if arguments.output is not None and len(formats) > 1:
        parser.error(f"--output={arguments.output}: names one file, but {len(formats)} formats are asked for")
    if arguments.check_tokens < 0:
        parser.error(f"--check-tokens={arguments.check_tokens}: must be at least 0")
    if len(arguments.runs) > 1 and formats != ["jit"]:
        parser.error("a mixture of runs is written by --jit alone")
    if arguments.weights is not None and len(arguments.weights) != max(len(arguments.runs), 1):
        parser.error(f"--weights: {len(arguments.weights)} do not fit {max(len(arguments.runs), 1)} runs")
    folders = [find_run(named, arguments.output_dir) for named in arguments.runs or [None]]
    if not arguments.runs:
        print(f"run: {folders[0]} (the newest)")
    _write(folders, formats, arguments, shlex.join(["tl-export", *argv]))
    return SUCCESS


def _write(folders: Sequence[Path], formats: Sequence[str], arguments: Namespace, command: str) -> None:
    from torch_linguist.checkpoint.loaded_run import load_run
    from torch_linguist.export.model_card import model_card
    from torch_linguist.generation import generate
    from torch_linguist.runs.files import write_text

    runs = [load_run(folder) for folder in folders]
    status = runs[0].summary.get("status")
    if status != "finished":
        print(f"note: the run has not finished (status {status or 'unknown'}); its best model so far is exported")
    stream = _checked_stream(runs[0]) if arguments.check_tokens else None
    model, summary = (runs[0].model, dict(runs[0].summary)) if len(runs) == 1 else _mixture(runs, arguments)
    settings = {key: summary[key] for key in KEPT if key in summary}
    place = arguments.output.parent if arguments.output is not None else folders[0]
    rows = []
    for name in formats:
        path = arguments.output or place / ("mixture.jit" if len(runs) > 1 else NAMES[name])
        report, exported = _MAKERS[name](model, runs[0], path, settings)
        facts = _facts(name, report, model, exported, stream, arguments.check_tokens)
        print(f"{report.path}: {report.mebibytes:.1f} MiB; " + "; ".join(facts))
        rows.append({"format": name, "name": path.name, "mebibytes": report.mebibytes, "facts": "; ".join(facts)})
    sample = generate(model, runs[0].tokenizer, "", max_tokens=40, top_p=0.9, seed=1)[0]
    title = folders[0].resolve().name if len(runs) == 1 else "Mixture of " + ", ".join(one.name for one in folders)
    write_text(place / "MODEL_CARD.md", model_card(title, summary, command, rows, sample))
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


def _facts(
    name: str,
    report: "ExportReport",
    model: "LanguageModel",
    exported: "ForeignModel",
    stream: "TokenStream | None",
    tokens: int,
) -> list[str]:
    """What a file is worth: how near the model, how fast; of int8 also what it was before."""
    from torch_linguist.export import measure_speed, perplexities

    facts = []
    if name != "int8":
        facts.append(f"within {report.difference:.1g} nats of the eager model")
    if stream is not None:
        eager, other = perplexities(model, exported, stream, tokens)
        counted = f"on the first {min(tokens, len(stream)):,} tokens of test"
        if name == "int8":
            facts.append(f"perplexity {eager:.2f} before, {other:.2f} after ({counted})")
        elif abs(other / eager - 1) > DIGITS:
            report.path.unlink()
            raise LinguistError(
                f"{report.path}: has perplexity {other:.6g}, the eager model {eager:.6g}, {counted}; it was thrown away"
            )
        else:
            facts.append(f"perplexity {other:.5g}, as the eager model's, {counted}")
    speed = measure_speed(exported, model.vocab_size)
    shown = f"{speed.milliseconds:.2f} ms a token, {speed.tokens_per_second:,.0f} tokens/s in batches"
    if name == "int8":
        before = measure_speed(model, model.vocab_size)
        size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()) / 2**20
        shown += f" (before: {size:.1f} MiB of weights, {before.milliseconds:.2f} ms, {before.tokens_per_second:,.0f})"
    return [*facts, shown]


Made = tuple["ExportReport", "ForeignModel"]


def _make_jit(model: "LanguageModel", run: "LoadedRun", path: Path, settings: dict[str, Any]) -> Made:
    from torch_linguist.export import export_jit, load_jit

    report = export_jit(model, run.tokenizer, path, settings)
    return report, load_jit(path).model


def _make_int8(model: "LanguageModel", run: "LoadedRun", path: Path, settings: dict[str, Any]) -> Made:
    from torch_linguist.export import load_jit
    from torch_linguist.export.formats.int8 import export_int8

    report = export_int8(model, run.tokenizer, path, settings)
    return report, load_jit(path).model


def _make_pt2(model: "LanguageModel", run: "LoadedRun", path: Path, settings: dict[str, Any]) -> Made:
    from torch_linguist.export import ForeignModel
    from torch_linguist.export.graph_tracing import export_pt2

    report, runner = export_pt2(model, run.tokenizer, path, settings)
    return report, ForeignModel(runner, runner.vocab_size, runner.context_length)


def _make_onnx(model: "LanguageModel", run: "LoadedRun", path: Path, settings: dict[str, Any]) -> Made:
    del settings
    from torch_linguist.export import ForeignModel
    from torch_linguist.export.graph_tracing import export_onnx

    report, runner = export_onnx(model, run.tokenizer, path)
    return report, ForeignModel(runner, runner.vocab_size, runner.context_length)


_MAKERS: dict[str, Callable[["LanguageModel", "LoadedRun", Path, dict[str, Any]], Made]] = {
    "jit": _make_jit,
    "pt2": _make_pt2,
    "onnx": _make_onnx,
    "int8": _make_int8,
}

if __name__ == "__main__":
    sys.exit(main())
