"""`tl-score`: scores lines, tokens, minimal pairs and n-best lists, and filters corpora by perplexity."""

import gc
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command, say
from torch_linguist.cli.option_types import Option, add_options, check_output, number, path, whole_number
from torch_linguist.cli.run_arguments import DEVICE, OUTPUT_DIR, add_weights
from torch_linguist.errors import ConfigError
from torch_linguist.runs.folders import find_run, split_runs

if TYPE_CHECKING:
    from torch_linguist.evaluation.texts.rows import Scorer

T = TypeVar("T")

EXAMPLES = """\
examples:
  tl-score outputs/lstm sentences.txt                    a row per line: log-probability, perplexity, …
  cat lines.txt | tl-score outputs/lstm                  from standard input
  tl-score outputs/lstm reviews.csv --column body        a column of a table; the others are kept
  tl-score outputs/lstm story.txt --words --carry        surprisal of each word, the lines as one text
  tl-score outputs/lstm outputs/ngram lines.txt --mix    columns for each run and for their mixture
  tl-score outputs/lstm --pairs blimp/                   minimal pairs: accuracy by group
  tl-score outputs/lstm --nbest lists.txt --weight 0.6   n-best lists, reranked
  tl-score outputs/ngram crawl.txt --keep-share 0.5      the half of a corpus with the lower perplexity

A line by itself starts from <eos>, the end of the line before it, and is closed by <eos>. KenLM's `query` starts from
<s> and closes with </s>, and prints logarithms to base 10 (--log 10). Folders among the arguments are runs, all others
are files."""


INPUT_OPTIONS: Mapping[str, Option] = {
    "--column": (str, "text", "NAME", "column of a .csv, .tsv, .jsonl or .parquet file"),
    "--errors": (str, "strict", "HOW", "treatment of invalid rows: strict, replace or skip"),
}

READING_OPTIONS: Mapping[str, Option] = {
    "--document-column": (str, None, "NAME", "rows with the same value in this column are one running text"),
    "--device": DEVICE,
    "--precision": (str, "fp32", "TYPE", "fp32, or bf16: faster on many machines, last digits differ"),
}

READING_FLAGS = {
    "--carry": "read all lines as one running text",
    "--no-eos": "score fragments, without <eos> at the end of each line",
}

OUTPUT_OPTIONS: Mapping[str, Option] = {
    "--top": (whole_number(0, 1000), 0, "K", "with --tokens: number of most probable tokens to list"),
    "--log": (str, "e", "BASE", "base of log-probabilities: e, 10 or 2"),
    "--format": (str, "tsv", "NAME", "tsv, jsonl, csv or parquet"),
    "--to": (path, None, "FILE", "output file (default: standard output)"),
    "--output-dir": OUTPUT_DIR,
}

OUTPUT_FLAGS = {
    "--tokens": "one row per token: surprisal, rank, entropy, offsets",
    "--words": "one row per word: the sums over its tokens",
}

TASK_OPTIONS: Mapping[str, Option] = {
    "--nbest": (str, None, "FILE", "n-best lists: Moses, JSON lines or Kaldi's text"),
    "--nbest-scores": (str, None, "FILE", "scores of Kaldi's hypotheses: KEY SCORE per line"),
    "--scores-to": (path, None, "FILE", "file for the new scores of Kaldi's hypotheses, which their text cannot hold"),
    "--weight": (number(), 0.5, "W", "weight of the language model"),
    "--length-penalty": (number(), 0.0, "P", "number added for each word"),
    "--tune": (str, None, "FILE", "references (KEY WORDS per line) for choosing weight and length penalty"),
    "--keep-below": (number(above=0), None, "PPL", "write the texts up to this perplexity"),
    "--keep-share": (number(above=0, most=1), None, "X", "write this share of the texts, those of lowest perplexity"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tl-score`."""
    return run_command(_score, argv)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-score", "Scores any text by the best models of runs.", EXAMPLES)
    parser.add_argument(
        "arguments", nargs="*", type=path, metavar="RUN|FILE",
        help="run folders or .arpa files (default: the newest run), then files of text (default: -)",
    )  # fmt: skip
    skip = {"--skip-empty": "leave out lines without text (default: score their <eos>)"}
    add_options(parser, "input", INPUT_OPTIONS, skip)
    add_options(parser, "reading", READING_OPTIONS, READING_FLAGS)
    add_options(parser, "output", OUTPUT_OPTIONS, OUTPUT_FLAGS)
    add_options(parser, "several runs", {}, {"--mix": "also score their linear mixture"})
    add_weights(parser, "weights of the mixture (default: equal weights)")
    parser.add_argument("--pairs", nargs="+", metavar="FILE", help="minimal pairs: BLiMP's JSON lines, or two columns")
    add_options(parser, "tasks", TASK_OPTIONS)
    return parser


def _score(argv: list[str]) -> int:
    with _without_collections():
        parser = _parser()
        arguments = parser.parse_intermixed_args(argv)
        _check(arguments, parser)
        folders, files = split_runs(arguments.arguments, arguments.output_dir)
        if not folders:
            folders = [find_run(None, arguments.output_dir)]
            _tell(f"run: {folders[0]} (the newest)")
        _check_outputs([*folders, *(files or ["-"])], arguments)
        from torch_linguist.evaluation.texts.rows import load_scorers

        scorers = load_scorers(folders, arguments.precision, arguments.device)
    if files and (arguments.pairs or arguments.nbest):
        parser.error(f"{files[0]}: --pairs and --nbest name the only files that are read")
    if arguments.pairs:
        _score_pairs(scorers, arguments)
    elif arguments.nbest:
        _rerank(scorers, arguments)
    else:
        _score_texts(scorers, files or ["-"], arguments)
    return SUCCESS


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep the garbage collector away while modules and models are loaded, and from visiting them later.

    Its visits take a fifth of the time of importing torch, and a tenth of that of scoring n-grams.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _check(arguments: Namespace, parser: ArgumentParser) -> None:
    from torch_linguist.evaluation.texts.filtering import check_filter

    check_filter(arguments.keep_below, arguments.keep_share)
    tasks = ("pairs", "nbest", "tokens", "words", "keep_below", "keep_share")
    given = [f"--{name.replace('_', '-')}" for name in tasks if getattr(arguments, name)]
    if len(given) > 1:
        parser.error(f"{' and '.join(given)}: give one of them")
    if arguments.top and not arguments.tokens:
        parser.error("--top: goes with --tokens")
    if arguments.precision not in ("fp32", "bf16"):
        parser.error(f"--precision={arguments.precision}: must be fp32 or bf16")
    if arguments.precision != "fp32" and (arguments.tokens or arguments.words or arguments.nbest):
        parser.error(f"--precision={arguments.precision}: goes with scores of lines and --pairs")
    if arguments.tune and not arguments.nbest:
        parser.error("--tune: goes with --nbest")
    if (arguments.mix or arguments.weights) and any(getattr(arguments, name) for name in tasks[:4]):
        parser.error("--mix and --weights: go with scores of lines and filters")


def _check_outputs(inputs: Sequence[Path | str], arguments: Namespace) -> None:
    lists = [arguments.nbest, arguments.nbest_scores, arguments.tune, *(arguments.pairs or ())]
    given = [Path(one) for one in lists if one]
    inputs = [*inputs, *given, *(file for one in given if one.is_dir() for file in one.iterdir())]
    check_output("--to", arguments.to, inputs)
    check_output("--scores-to", arguments.scores_to, inputs)
    if arguments.to is not None and arguments.to == arguments.scores_to:
        raise ConfigError(f"--scores-to={arguments.scores_to}: is the file of --to; name another file")


def _score_texts(scorers: "Sequence[Scorer]", files: Sequence[str], arguments: Namespace) -> None:
    from torch_linguist.evaluation.texts.filtering import filter_texts
    from torch_linguist.evaluation.texts.records import RecordReader
    from torch_linguist.evaluation.texts.rows import Reading, line_rows, token_rows
    from torch_linguist.evaluation.texts.writing import line_writer, row_writer

    reader = RecordReader(files, arguments.column, arguments.errors, arguments.skip_empty)
    reading = Reading(not arguments.no_eos, arguments.carry, arguments.document_column, arguments.log)
    weights = arguments.weights or ([1 / len(scorers)] * len(scorers) if arguments.mix else None)
    _tell(f"{reading.conventions()}; log-probabilities to base {arguments.log}")
    if arguments.keep_below is not None or arguments.keep_share is not None:
        blocks = line_rows(scorers, reader, reading, weights)
        scored = (
            (record.text, value)
            for block in blocks
            for record, value in zip(block.records, block.perplexities, strict=True)
        )
        shown = _shown(scored, "lines", arguments.to)
        with line_writer(arguments.to, sys.stdout) as output:
            found = filter_texts(shown, output.write_line, below=arguments.keep_below, share=arguments.keep_share)
        share = found.kept / found.total if found.total else 0.0
        limit = f"with a perplexity of at most {found.threshold:.6g}"
        _tell(f"kept {found.kept:,} of {found.total:,} texts ({share:.1%}) {limit}")
    else:
        with row_writer(arguments.format, arguments.to, sys.stdout) as writer:
            if arguments.tokens or arguments.words:
                rows = token_rows(scorers, reader, reading, arguments.top, arguments.words)
                for row in _shown(rows, "rows", arguments.to):
                    writer.write(row)
            else:
                blocks = line_rows(scorers, reader, reading, weights)
                for block in _shown(blocks, "lines", arguments.to, lambda block: len(block.records)):
                    texts = [record.text for record in block.records]
                    if block.has_other_columns:
                        for row, text in zip(block.rows(), texts, strict=True):
                            writer.write({**row, arguments.column: text})
                    else:
                        writer.write_columns({**block.columns, arguments.column: texts})
    _tell_left_out(reader.skipped)
    if reader.empty:
        _tell(f"left out {reader.empty:,} {'line' if reader.empty == 1 else 'lines'} without text")


def _score_pairs(scorers: "Sequence[Scorer]", arguments: Namespace) -> None:
    from torch_linguist.evaluation.texts.pair_evaluation import evaluate_pairs, read_pairs
    from torch_linguist.evaluation.texts.writing import row_writer
    from torch_linguist.report.console import make_console
    from torch_linguist.report.text_tables import pair_table

    read = read_pairs(arguments.pairs, arguments.errors)
    report = evaluate_pairs(scorers, read.pairs)
    if arguments.to is not None:
        with row_writer(arguments.format, arguments.to, sys.stdout) as writer:
            for label, accuracies in report.accuracies.items():
                for accuracy in accuracies:
                    writer.write({"model": label, **vars(accuracy)})
    make_console().print(pair_table(report))
    for (one, other), p_value in report.p_values.items():
        say(f"{one} and {other}: p = {p_value:.3g} that they differ by chance (exact sign test)")
    _tell_left_out(read.skipped)


def _rerank(scorers: "Sequence[Scorer]", arguments: Namespace) -> None:
    from torch_linguist.evaluation.texts import nbest
    from torch_linguist.evaluation.texts.records import RecordReader, plain_lines
    from torch_linguist.evaluation.texts.writing import line_writer

    if len(scorers) > 1:
        raise ConfigError("--nbest: takes one run; score with several by a mixture of tl-export")
    if arguments.scores_to is not None and arguments.nbest_scores is None:
        raise ConfigError("--scores-to: goes with --nbest-scores; other forms of n-best lists hold their scores")
    weight, penalty = arguments.weight, arguments.length_penalty
    reader = RecordReader([arguments.nbest], errors=arguments.errors)
    hypotheses = nbest.read_and_score(
        reader, scorers[0].model, scorers[0].tokenizer, arguments.nbest_scores, closed=not arguments.no_eos
    )
    if arguments.tune:
        tuned = nbest.tune(hypotheses, nbest.read_keyed(plain_lines(arguments.tune, arguments.errors), arguments.tune))
        weight, penalty = tuned.weight, tuned.length_penalty
        _tell(
            f"--weight {weight:g} --length-penalty {penalty:g}: {tuned.word_error_rate:.2%} word errors "
            f"({tuned.errors:,} of {tuned.words:,} words)"
        )
    ranked = nbest.reranked(hypotheses, weight, penalty)
    with line_writer(arguments.to, sys.stdout) as output:
        for hypothesis in ranked:
            output.write_line(nbest.formatted(hypothesis))
    if arguments.scores_to is not None:
        with line_writer(arguments.scores_to, sys.stdout) as output:
            for hypothesis in ranked:
                output.write_line(f"{hypothesis.key} {hypothesis.score:.6f}")
    _tell_left_out(reader.skipped)


def _shown(items: Iterable[T], unit: str, to: Path | None, count: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
    """Yield the items, with the sum of their counts on a terminal to which the output does not go."""
    if not sys.stderr.isatty() or (to is None and sys.stdout.isatty()):
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.completed:,.0f} {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(unit, total=None)
        for item in items:
            yield item
            progress.advance(task, count(item))


def _tell(message: str) -> None:
    say(message, to_stderr=True)


def _tell_left_out(rows: int) -> None:
    if rows:
        _tell(f"left out {rows:,} {'row' if rows == 1 else 'rows'} that cannot be read")


if __name__ == "__main__":
    sys.exit(main())
