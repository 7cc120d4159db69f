"""`tl-analyze`: what a run has learned, as a page; or two runs side by side."""

import sys
from collections.abc import Sequence

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command, say
from torch_linguist.cli.option_types import LARGEST_SEED, whole_number
from torch_linguist.cli.run_arguments import DATA_HELP, add_runs, add_trust, find_runs

SPLITS = ("train", "valid", "test")

PARTS = ("slices", "surprisal", "sensitivity", "heatmaps", "embeddings", "calibration", "comparison")

EXAMPLES = """\
examples:
  tl-analyze                          the newest run under outputs/, on valid
  tl-analyze lstm --split test        outputs/lstm
  tl-analyze lstm ngram               two runs side by side, and where one beats the other
  tl-analyze lstm --text "The king of the"
                                      what its next word depends on, besides passages of the split
  tl-analyze lstm --data my_texts/    another corpus, with the tokenizer of the run
  tl-analyze lstm --parts slices calibration

Writes one page that opens from disk, every figure as PNG and every table as CSV, into a folder under outputs/: loss by
slice (frequency, position, word class, metadata), surprisal of passages, sensitivity to shortened or damaged context,
what predictions depend on (occlusion; integrated gradients by captum; attention maps), embeddings, calibration.
Gradients and the map of words need pip install "torch-linguist[analyze]"; everything else works without it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tl-analyze`."""
    return run_command(_analyze, argv)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-analyze", "Shows what the best models of runs have learned.", EXAMPLES)
    add_runs(parser, most=2)
    parser.add_argument("--split", choices=SPLITS, default="valid", help="the split to analyze (default: valid)")
    parser.add_argument("--data", metavar="NAME", help=DATA_HELP)
    add_trust(parser)
    parser.add_argument("--text", metavar="TEXT", help="a text of your own for the colored passages and heatmaps")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        metavar="PART",
        help=f"only these of {', '.join(PARTS)} (default: all)",
    )
    parser.add_argument(
        "--stride", type=whole_number(), help="new tokens per window of a Transformer (default: half its context)"
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0, LARGEST_SEED),
        default=1,
        metavar="N",
        help="random seed of every sample (default: 1)",
    )
    samples = parser.add_argument_group("samples")
    samples.add_argument(
        "--probes",
        type=whole_number(2),
        default=200,
        metavar="N",
        help="positions whose context is shortened and damaged (200)",
    )
    samples.add_argument("--passages", type=whole_number(0), default=3, metavar="N", help="colored passages (3)")
    samples.add_argument(
        "--examples", type=whole_number(0), default=4, metavar="N", help="predictions with heatmaps (4)"
    )
    samples.add_argument(
        "--predictions", type=whole_number(), default=8000, metavar="N", help="predictions for calibration (8,000)"
    )
    parser.add_argument("--name", help="name of the new folder (default: analyze-, the run and the time)")
    return parser


def _analyze(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    if len(arguments.runs) > 2:
        parser.error(f"{len(arguments.runs)} runs: takes one, or two side by side")
    folders = find_runs(arguments)

    from torch_linguist.analysis import AnalysisSettings, analyze
    from torch_linguist.config.named_corpus import analyzed_runs

    settings = AnalysisSettings(
        parts=tuple(arguments.parts),
        seed=arguments.seed,
        probes=arguments.probes,
        passages=arguments.passages,
        examples=arguments.examples,
        predictions=arguments.predictions,
        text=arguments.text,
    )
    runs = analyzed_runs(
        folders, arguments.split, arguments.data, stride=arguments.stride, trusted=arguments.trust_data
    )
    found = analyze(runs, arguments.output_dir, arguments.name, settings, report=say)
    for finding in found.findings:
        say(f"- {finding}")
    say(f"{found.page} ({found.seconds:.0f} s)")
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
