"""`tl-eval`: scores runs on a split of their own corpus or others, side by side, mixed or adapting."""

import sys
from collections.abc import Mapping, Sequence

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command, say
from torch_linguist.cli.option_types import Option, add_options, path, whole_number
from torch_linguist.cli.run_arguments import DATA_HELP, DEVICE, STRIDE, add_runs, add_trust, find_runs
from torch_linguist.runs.folders import create_run_folder

SPLITS = ("valid", "test", "all")

EXAMPLES = """\
examples:
  tl-eval                                     the newest run under outputs/, on test
  tl-eval lstm --split valid test             outputs/lstm
  tl-eval lstm gru                            side by side, with a paired significance test
  tl-eval lstm ngram --mix                    both, and their linear mixture with weights fitted on valid
  tl-eval lstm --data my_texts/               another corpus, with the tokenizer of the run
  tl-eval lstm --data my_texts/ --split all   every word of it, not its test split alone
  tl-eval a b --data sotu wikitext2:FOLDER text:my_texts/
                                              the matrix of runs and corpora: table, CSV and heatmap
  tl-eval lstm --cache --dynamic              also with a continuous cache, with dynamic evaluation, and with both
  tl-eval lstm ngram --mix --cache --dynamic  everything above, and the mixture of all of it

Every token of the split is scored once, <eos> included, independently of any batch size. Across tokenizers compare
word perplexity and bits per byte. Intervals are 95%, by bootstrap over documents (blocks of lines if a split has fewer
than 20 documents). Mixtures, caches and dynamic evaluation are tuned on valid only."""


OPTIONS: Mapping[str, Option] = {
    "--device": DEVICE,
    "--stride": STRIDE,
    "--segment": (whole_number(), 64, "N", "tokens per step of dynamic evaluation"),
    "--tune-tokens": (whole_number(), 20_000, "N", "tokens of valid on which cache and dynamic evaluation are tuned"),
    "--to": (path, None, "FOLDER", "folder for scores.csv and the heatmap of a matrix"),
}

FLAGS = {
    "--mix": "also score their linear mixture, weights by EM on valid",
    "--dynamic": "also with dynamic evaluation (Krause et al. 2018)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tl-eval`."""
    return run_command(_eval, argv)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-eval", "Scores the best models of runs.", EXAMPLES)
    add_runs(parser)
    parser.add_argument(
        "--split",
        nargs="+",
        choices=SPLITS,
        default=["test"],
        help="splits to score; all, with --data, is the whole of another corpus (default: test)",
    )
    parser.add_argument("--data", nargs="+", metavar="NAME", default=[None], help=DATA_HELP)
    add_trust(parser)
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32",
        help="precision of the matrix products, --dynamic excepted; bf16 is accurate enough to compare, and often "
        "faster (default: fp32)",
    )  # fmt: skip
    parser.add_argument(
        "--cache", nargs="?", type=whole_number(), const=2000, metavar="SIZE",
        help="also with a continuous cache (Grave et al. 2017) of this many tokens (2000)",
    )  # fmt: skip
    add_options(parser, None, OPTIONS, FLAGS)
    return parser


def _eval(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    folders = find_runs(arguments)
    if "all" in arguments.split and None in arguments.data:
        parser.error("--split all: takes --data, since a run's own corpus holds the text that it was trained on")
    if arguments.mix and len(folders) < 2:
        parser.error("--mix: takes two runs or more")

    from torch_linguist.config.named_corpus import evaluate_folders
    from torch_linguist.evaluation.run_evaluation import EvaluationSettings
    from torch_linguist.report import score_tables
    from torch_linguist.report.console import ProgressLine, make_console

    settings = EvaluationSettings(
        splits=arguments.split,
        mix=arguments.mix,
        stride=arguments.stride,
        precision=arguments.precision,
        cache_size=arguments.cache,
        dynamic=arguments.dynamic,
        segment=arguments.segment,
        tune_tokens=arguments.tune_tokens,
    )
    entries = evaluate_folders(
        folders,
        settings,
        arguments.data,
        trusted=arguments.trust_data,
        device=arguments.device,
        note=say,
        progress=ProgressLine(),
    )

    console = make_console()
    score_tables.show_scores(entries, console)
    matrix = len(arguments.data) > 1
    if arguments.to is not None or matrix:
        folder = arguments.to or create_run_folder(arguments.output_dir, None, "eval")
        files = score_tables.write_scores(entries, folder)
        if matrix:
            files += score_tables.show_matrix(entries, console, folder)
        console.print("written: " + ", ".join(map(str, files)), markup=False)
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
