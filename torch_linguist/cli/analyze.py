"""`tl-analyze`: what a run has learned, as a page; or two runs side by side."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command
from torch_linguist.config import named_corpus as corpora
from torch_linguist.runs.folders import find_run

if TYPE_CHECKING:
    from torch_linguist.analysis import AnalyzedRun

SPLITS = ("train", "valid", "test")

PARTS = ("slices", "surprisal", "sensitivity", "heatmaps", "embeddings", "calibration", "comparison")

EXAMPLES = """\
examples:
  tl-analyze                                  the newest run under outputs/, on valid
  tl-analyze outputs/lstm --split test
  tl-analyze outputs/lstm outputs/ngram       two runs side by side, and where one beats the other
  tl-analyze outputs/lstm --text "The king of the"
                                              what its next word rests on, beside places of the split
  tl-analyze outputs/lstm --data my_texts/    on another corpus, with the tokenizer of the run
  tl-analyze outputs/lstm --parts slices calibration

Writes one page that opens from disk, every figure as PNG and every table as CSV, into a folder under outputs/: loss by
slice (frequency, position, word class, metadata), surprisal of passages, sensitivity to a context that is cut or
damaged, what predictions rest on (occlusion; integrated gradients by captum; attention maps), embeddings, calibration.
Gradients and the map of words need pip install "torch-linguist[analyze]"; the rest comes without.

exit codes: 0 written; 1 failed; 2 wrong usage; 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `tl-analyze`.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command(_analyze, argv)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-analyze", "Shows what the best models of runs have learned.", EXAMPLES)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="one run folder or two (default: the newest)")
    parser.add_argument("--split", choices=SPLITS, default="valid", help="which split (default: valid)")
    parser.add_argument("--data", metavar="NAME", help=corpora.HELP)
    parser.add_argument("--text", metavar="TEXT", help="a text of your own for the colored texts and heatmaps")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        metavar="PART",
        help=f"only these of {', '.join(PARTS)} (default: all)",
    )
    parser.add_argument("--stride", type=int, help="new tokens a window of a Transformer (default: half its context)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of every sample (default: 1)")
    samples = parser.add_argument_group("samples")
    samples.add_argument(
        "--probes", type=int, default=200, metavar="N", help="places where the context is cut and damaged (200)"
    )
    samples.add_argument("--passages", type=int, default=3, metavar="N", help="passages that are colored (3)")
    samples.add_argument("--examples", type=int, default=4, metavar="N", help="predictions with heatmaps (4)")
    samples.add_argument(
        "--predictions", type=int, default=8000, metavar="N", help="predictions for the calibration (8,000)"
    )
    parser.add_argument("--name", help="of the folder (default: analyze-, the run and the time)")
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("outputs"),
        metavar="DIR",
        help="where the folder is made, and the newest run looked for (default: outputs)",
    )
    return parser


def _analyze(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    if len(arguments.runs) > 2:
        parser.error(f"{len(arguments.runs)} runs: takes one, or two side by side")
    folders = [find_run(named, arguments.output_dir) for named in arguments.runs or [None]]
    if not arguments.runs:
        print(f"run: {folders[0]} (the newest)", flush=True)

    from torch_linguist.analysis import AnalysisSettings, analyze

    settings = AnalysisSettings(
        parts=tuple(arguments.parts),
        seed=arguments.seed,
        probes=arguments.probes,
        passages=arguments.passages,
        examples=arguments.examples,
        predictions=arguments.predictions,
        text=arguments.text,
    )
    found = analyze(
        _analyzed_runs(folders, arguments),
        arguments.output_dir,
        arguments.name,
        settings,
        report=lambda line: print(line, flush=True),
    )
    for finding in found.findings:
        print(f"- {finding}")
    print(f"{found.page} ({found.seconds:.0f} s)")
    return SUCCESS


def _analyzed_runs(folders: Sequence[Path], arguments: Namespace) -> "list[AnalyzedRun]":
    """The runs with the corpus in their tokens; both on the first one's where none is named."""
    from torch_linguist.analysis import AnalyzedRun, short_labels
    from torch_linguist.checkpoint.loaded_run import load_run
    from torch_linguist.data import prepare

    source = corpora.find_corpus(arguments.data, folders[0])
    loaded = [load_run(folder) for folder in folders]
    labels = short_labels(folders, [run.model for run in loaded])
    return [
        AnalyzedRun(
            label,
            run.model,
            run.tokenizer,
            prepare(source, None, tokenizer=run.tokenizer),
            arguments.split,
            arguments.stride,
            folder,
        )
        for folder, label, run in zip(folders, labels, loaded, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main())
