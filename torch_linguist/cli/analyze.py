"""`tl-analyze`: what a run has learned, as a page; or two runs side by side."""

import sys
from collections.abc import Mapping, Sequence

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command, say
from torch_linguist.cli.option_types import LARGEST_SEED, Option, add_options, whole_number
from torch_linguist.cli.run_arguments import DATA_HELP, DEVICE, STRIDE, add_runs, add_trust, find_runs

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


OPTIONS: Mapping[str, Option] = {
    "--data": (str, None, "NAME", DATA_HELP),
    "--text": (str, None, "TEXT", "your own text for the colored passages and heatmaps"),
    "--device": DEVICE,
    "--stride": STRIDE,
    "--seed": (whole_number(0, LARGEST_SEED), 1, "N", "random seed of every sample"),
    "--name": (str, None, "NAME", "name of the new folder (default: analyze-, the run and the time)"),
}

SAMPLE_OPTIONS: Mapping[str, Option] = {
    "--probes": (whole_number(2), 200, "N", "positions at which the context is shortened and damaged"),
    "--passages": (whole_number(0), 3, "N", "colored passages"),
    "--examples": (whole_number(0), 4, "N", "predictions with heatmaps"),
    "--predictions": (whole_number(), 8000, "N", "predictions for calibration"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tl-analyze`."""
    return run_command(_analyze, argv)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-analyze", "Shows what the best models of runs have learned.", EXAMPLES)
    add_runs(parser, most=2)
    parser.add_argument("--split", choices=SPLITS, default="valid", help="split to analyze (default: valid)")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
        help=f"parts of the page, from {', '.join(PARTS)} (default: all)",
    )  # fmt: skip
    add_trust(parser)
    add_options(parser, None, OPTIONS)
    add_options(parser, "samples", SAMPLE_OPTIONS)
    return parser


def _analyze(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    if len(arguments.runs) > 2:
        parser.error(f"{len(arguments.runs)} runs: takes one, or two side by side")
    folders = find_runs(arguments)

    from torch_linguist.analysis import AnalysisSettings, analyze
    from torch_linguist.config.named_corpus import analyzed_runs

    names = ("seed", "text", *(option.removeprefix("--") for option in SAMPLE_OPTIONS))
    settings = AnalysisSettings(parts=tuple(arguments.parts), **{name: getattr(arguments, name) for name in names})
    runs = analyzed_runs(
        folders,
        arguments.split,
        arguments.data,
        stride=arguments.stride,
        trusted=arguments.trust_data,
        device=arguments.device,
    )
    found = analyze(runs, arguments.output_dir, arguments.name, settings, report=say)
    for finding in found.findings:
        say(f"- {finding}")
    say(f"\npage: {found.page} ({found.seconds:.0f} s)")
    for command in found.commands:
        say(f"  {command}")
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
