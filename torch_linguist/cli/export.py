"""`tl-export`: the best model of a run, or a mixture, as files that run where torch_linguist is not installed."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command, say
from torch_linguist.cli.option_types import Option, add_options, check_output, path, whole_number
from torch_linguist.cli.run_arguments import add_runs, add_trust, add_weights, check_weights, find_runs
from torch_linguist.errors import ConfigError
from torch_linguist.export.export_format import export_formats

EXAMPLES = """\
examples:
  tl-export --jit                            the newest run under outputs/
  tl-export lstm --jit --onnx                several formats of outputs/lstm
  tl-export lstm --jit --output my-model.jit
  tl-export lstm --quantize int8             eight-bit weights: size, speed and perplexity before and after
  tl-export gpt --hf my-model                a folder for transformers
  tl-export ngram --arpa model.arpa.gz       a file for KenLM, which all commands also take in place of a run
  tl-export lstm ngram --jit                 the mixture of both, weights fitted on valid
  tl-export lstm ngram --html both.html      a page in which both work side by side, without a network

A .jit file maps text to text with torch alone: torch.jit.load(FILE).generate("The", 50). It holds tokenizer.json,
vocabulary.json and settings.json. PyTorch deprecates TorchScript; its successors are --pt2 and --onnx. Each file is
compared with the model on several shapes before it is kept, then on a text: the perplexity must be equal to five
digits. MODEL_CARD.md is written beside the file."""


KEPT_FILES = ("config.yaml", "tokenizer.json", "summary.json", "progress.json")
"""Files of a run folder that no export replaces, beside its checkpoints."""

OPTIONS: Mapping[str, Option] = {
    "--prompt": (str, "", "TEXT", "with --html: text at the start of the page"),
    "--output": (path, None, "FILE", "path of the file"),
    "--check-tokens": (whole_number(0), 5000, "N", "tokens of test for comparing the perplexity; 0 for no comparison"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tl-export`."""
    return run_command(_export, argv)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-export", "Exports the best model of a run.", EXAMPLES)
    add_runs(parser)
    add_trust(parser)
    formats = export_formats()
    for one in formats:
        text = f"{one.help} (RUN/{one.file_name})"
        if one.takes_path:
            _add_file(parser, f"--{one.name}", text)
        elif one.is_exact:
            parser.add_argument(f"--{one.name}", action="store_true", help=text)
    inexact = {one.name: f"{one.name}: {one.help} (RUN/{one.file_name})" for one in formats if not one.is_exact}
    parser.add_argument("--quantize", choices=list(inexact), help="; ".join(inexact.values()))
    add_weights(parser, "weights of a mixture (default: fitted on valid by EM)")
    _add_file(parser, "--html", "a page in which the models of the runs work side by side (RUN/model.html)")
    add_options(parser, None, OPTIONS)
    return parser


def _add_file(parser: ArgumentParser, option: str, text: str) -> None:
    """Add an option that may name its file: the value is a path, True without one, False without the option."""
    parser.add_argument(option, nargs="?", const=True, default=False, type=path, metavar="PATH", help=text)


def _check_outputs(paths: Mapping[str, Path], folders: Sequence[Path]) -> None:
    """Check that the files to write are different ones, and none that the runs need."""
    needed = [
        file
        for folder in folders
        for file in (folder, *(folder / name for name in KEPT_FILES), *folder.glob("checkpoints/*"))
    ]
    for name, file in paths.items():
        check_output(f"--{name}", file, needed)
        if list(paths.values()).count(file) > 1:
            raise ConfigError(f"--{name}={file}: is the file of two options; name another file")


def _export(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    known = export_formats()
    formats = [one for one in known if one.name == arguments.quantize or getattr(arguments, one.name, False)]
    if not formats and not arguments.html:
        options = ", ".join(f"--{one.name}" for one in known if one.is_exact)
        parser.error(f"choose a format: {options} or --quantize int8")
    requested = len(formats) + bool(arguments.html)
    if arguments.output is not None and requested > 1:
        parser.error(f"--output={arguments.output}: names one file, but {requested} formats are requested")
    if len(arguments.runs) > 1 and not all(one.takes_mixtures for one in formats):
        takers = " and ".join(f"--{one.name}" for one in known if one.takes_mixtures)
        parser.error(f"a mixture of runs is written by {takers} alone")
    check_weights(parser, arguments)
    folders = find_runs(arguments)
    outputs = {name: getattr(arguments, name, None) for name in ("output", "html", *(one.name for one in known))}
    paths = {name: file for name, file in outputs.items() if isinstance(file, Path)}
    _check_outputs(paths, folders)

    from torch_linguist.checkpoint.loaded_run import load_run
    from torch_linguist.config.named_corpus import find_corpus
    from torch_linguist.data import TokenStream
    from torch_linguist.export.html import write_runs_page
    from torch_linguist.export.run_export import export_runs

    runs = [load_run(folder) for folder in folders]
    if arguments.html:
        named = arguments.html if isinstance(arguments.html, Path) else arguments.output
        path = named or runs[0].files_folder / "model.html"
        size = write_runs_page(runs, path, arguments.prompt, arguments.weights)
        say(f"{path}: {size / 2**20:.1f} MiB; open it in a browser, it needs nothing else")
    if not formats:
        return SUCCESS

    def open_split(split: str) -> TokenStream:
        corpus = find_corpus(None, folders[0], trusted=arguments.trust_data)
        return runs[0].own_corpus(corpus).streams[split]

    export_runs(
        runs,
        formats,
        open_split=open_split,
        path=arguments.output,
        paths=paths,
        weights=arguments.weights,
        check_tokens=arguments.check_tokens,
        command=shlex.join(["tl-export", *argv]),
        note=say,
    )
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
