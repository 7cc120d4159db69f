"""`tl-eval`: scores runs on a split of their own corpus or others, side by side, mixed or adapting."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, ProgressLine, make_console, run_command, say
from torch_linguist.cli.option_types import path, whole_number
from torch_linguist.cli.run_arguments import DATA_HELP, add_runs, add_trust, find_runs
from torch_linguist.runs.folders import create_run_folder

if TYPE_CHECKING:
    from rich.console import Console

    from torch_linguist.evaluation.run_evaluation import ScoredModel

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
    parser.add_argument("--mix", action="store_true", help="also score their linear mixture, weights by EM on valid")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="of the matrix products; bf16 is faster on many machines and accurate enough to compare (default: fp32)",
    )
    parser.add_argument(
        "--stride", type=whole_number(), help="new tokens per window of a Transformer (default: half its context)"
    )
    parser.add_argument(
        "--cache",
        nargs="?",
        type=whole_number(),
        const=2000,
        metavar="SIZE",
        help="also with a continuous cache (Grave et al. 2017) of this many tokens (2000)",
    )
    parser.add_argument("--dynamic", action="store_true", help="also with dynamic evaluation (Krause et al. 2018)")
    parser.add_argument(
        "--segment",
        type=whole_number(),
        default=64,
        metavar="N",
        help="tokens per step of dynamic evaluation (default: 64)",
    )
    parser.add_argument(
        "--tune-tokens",
        type=whole_number(),
        default=20_000,
        metavar="N",
        help="tokens of valid on which cache and dynamic evaluation are tuned (default: 20,000)",
    )
    parser.add_argument("--to", type=path, metavar="FOLDER", help="write scores.csv and the heatmap of a matrix there")
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
        folders, settings, arguments.data, trusted=arguments.trust_data, note=say, progress=ProgressLine()
    )

    comparisons = score_tables.compare_entries(entries)
    console = make_console()
    for line in score_tables.policy_lines(entries):
        console.print(line, markup=False)
    names = list(dict.fromkeys(entry.corpus for entry in entries))
    for name in names:
        if len(names) > 1:
            console.print(f"\n{name}", markup=False, style="bold")
        for table in score_tables.evaluation_tables([entry for entry in entries if entry.corpus == name]):
            console.print(table)
    if comparisons:
        console.print(score_tables.comparison_table(comparisons))
    _write(console, entries, arguments)
    return SUCCESS


def _write(console: "Console", entries: "list[ScoredModel]", arguments: Namespace) -> None:
    """Write CSV files if `--to` is given, and the matrix if there are several corpora."""
    from torch_linguist.report import score_tables

    matrix = len(arguments.data) > 1
    if arguments.to is None and not matrix:
        return
    folder = arguments.to or create_run_folder(arguments.output_dir, None, "eval")
    folder.mkdir(parents=True, exist_ok=True)
    files = score_tables.write_scores(entries, score_tables.compare_entries(entries), folder)
    if matrix:
        for split in arguments.split:
            console.print(score_tables.matrix_table(entries, split))
            files.append(folder / f"matrix-{split}.png")
            score_tables.plot_matrix(entries, split, files[-1])
    console.print("written: " + ", ".join(map(str, files)), markup=False)


if __name__ == "__main__":
    sys.exit(main())
