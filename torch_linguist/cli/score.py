"""`tl-score`: scores lines, tokens, minimal pairs and n-best lists, and filters corpora by perplexity."""

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, make_console, run_command, say
from torch_linguist.cli.option_types import number, path, whole_number
from torch_linguist.errors import ConfigError
from torch_linguist.runs.folders import find_run, run_labels

if TYPE_CHECKING:
    from torch_linguist.evaluation.texts.records import RecordReader
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tl-score`."""
    return run_command(_score, argv)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-score", "Scores any text by the best models of runs.", EXAMPLES)
    parser.add_argument(
        "arguments",
        nargs="*",
        type=path,
        metavar="RUN|FILE",
        help="run folders (default: the newest run), then files (default: -)",
    )
    source = parser.add_argument_group("input")
    source.add_argument("--column", default="text", help="column of a .csv, .tsv, .jsonl or .parquet file (text)")
    source.add_argument("--errors", default="strict", metavar="HOW", help="bad rows: strict, replace or skip (strict)")
    source.add_argument("--skip-empty", action="store_true", help="leave out lines without text (default: <eos> alone)")
    reading = parser.add_argument_group("reading")
    reading.add_argument("--carry", action="store_true", help="read all lines as one running text")
    reading.add_argument("--document-column", metavar="NAME", help="rows with the same value are one running text")
    reading.add_argument("--no-eos", action="store_true", help="score fragments: no <eos> closes a line")
    detail = parser.add_argument_group("output")
    detail.add_argument("--tokens", action="store_true", help="a row per token: surprisal, rank, entropy, offsets")
    detail.add_argument("--words", action="store_true", help="a row per word: its tokens added up")
    detail.add_argument(
        "--top", type=whole_number(0, 1000), default=0, metavar="K", help="with --tokens: the K most probable tokens"
    )
    detail.add_argument("--log", default="e", metavar="BASE", help="base of log-probabilities: e, 10 or 2 (e)")
    detail.add_argument("--format", default="tsv", help="tsv, jsonl, csv or parquet (tsv)")
    detail.add_argument("--to", type=path, metavar="FILE", help="file to write instead of standard output")
    several = parser.add_argument_group("several runs")
    several.add_argument("--mix", action="store_true", help="also score their linear mixture")
    several.add_argument(
        "--weights", type=number(0), nargs="+", metavar="W", help="weights of the mixture (equal ones)"
    )
    tasks = parser.add_argument_group("tasks")
    tasks.add_argument("--pairs", nargs="+", metavar="FILE", help="minimal pairs: BLiMP's JSON lines, or two columns")
    tasks.add_argument("--nbest", metavar="FILE", help="n-best lists: Moses, JSON lines or Kaldi's text")
    tasks.add_argument("--nbest-scores", metavar="FILE", help="scores of Kaldi's hypotheses: KEY SCORE per line")
    tasks.add_argument("--weight", type=number(), default=0.5, metavar="W", help="weight of the language model (0.5)")
    tasks.add_argument("--length-penalty", type=number(), default=0.0, metavar="P", help="added for each word (0)")
    tasks.add_argument("--tune", metavar="FILE", help="references (KEY WORDS per line): find weight and length penalty")
    tasks.add_argument(
        "--keep-below", type=number(above=0), metavar="PPL", help="write the texts up to this perplexity"
    )
    tasks.add_argument(
        "--keep-share", type=number(above=0, most=1), metavar="X", help="write this share, the lowest perplexities"
    )
    parser.add_argument(
        "--output-dir", type=path, default=Path("outputs"), metavar="DIR", help="where the newest run is looked for"
    )
    return parser


def _score(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    _check(arguments, parser)
    named = {name: _is_run(name, arguments.output_dir) for name in map(str, arguments.arguments)}
    folders = [find_run(Path(name), arguments.output_dir) for name, is_run in named.items() if is_run]
    files = [name for name, is_run in named.items() if not is_run]
    for name in files:
        if name != "-" and not Path(name).is_file():
            raise ConfigError(f"{name}: there is no such run folder or file")
    if not folders:
        folders = [find_run(None, arguments.output_dir)]
        _tell(f"run: {folders[0]} (the newest)")

    from torch_linguist.checkpoint import load_run
    from torch_linguist.evaluation.texts.rows import Scorer

    runs = [load_run(folder) for folder in folders]
    scorers = [Scorer(label, run.model, run.tokenizer) for label, run in zip(run_labels(folders), runs, strict=True)]
    if arguments.pairs:
        _score_pairs(scorers, arguments)
    elif arguments.nbest:
        _rerank(scorers, arguments)
    else:
        _score_texts(scorers, files or ["-"], arguments)
    return SUCCESS


def _is_run(name: str, output_dir: Path) -> bool:
    """Return whether an argument is a folder, or the name of one in `output_dir`; a file of that name comes first."""
    return Path(name).is_dir() or (not Path(name).exists() and (output_dir / name).is_dir())


def _check(arguments: Namespace, parser: ArgumentParser) -> None:
    from torch_linguist.evaluation.texts.filtering import check_filter

    check_filter(arguments.keep_below, arguments.keep_share)
    tasks = ("pairs", "nbest", "tokens", "words", "keep_below", "keep_share")
    given = [f"--{name.replace('_', '-')}" for name in tasks if getattr(arguments, name)]
    if len(given) > 1:
        parser.error(f"{' and '.join(given)}: give one of them")
    if arguments.top and not arguments.tokens:
        parser.error("--top: goes with --tokens")
    if arguments.tune and not arguments.nbest:
        parser.error("--tune: goes with --nbest")


def _score_texts(scorers: "Sequence[Scorer]", files: Sequence[str], arguments: Namespace) -> None:
    from torch_linguist.evaluation.texts.filtering import filter_texts
    from torch_linguist.evaluation.texts.records import RecordReader
    from torch_linguist.evaluation.texts.rows import Reading, line_rows, token_rows
    from torch_linguist.evaluation.texts.writing import row_writer

    reader = RecordReader(files, arguments.column, arguments.errors, arguments.skip_empty)
    reading = Reading(not arguments.no_eos, arguments.carry, arguments.document_column, arguments.log)
    weights = arguments.weights or ([1 / len(scorers)] * len(scorers) if arguments.mix else None)
    _tell(f"{reading.conventions()}; log-probabilities to base {arguments.log}")
    if arguments.keep_below is not None or arguments.keep_share is not None:
        scored = _shown(line_rows(scorers, reader, reading, weights), "lines")
        texts = ((record.text, score.perplexity) for record, _, score in scored)
        with _output(arguments.to) as output:
            found = filter_texts(texts, output, below=arguments.keep_below, share=arguments.keep_share)
        share = found.kept / found.total if found.total else 0.0
        limit = f"with a perplexity of at most {found.threshold:.6g}"
        _tell(f"kept {found.kept:,} of {found.total:,} texts ({share:.1%}) {limit}")
    else:
        with row_writer(arguments.format, arguments.to, sys.stdout) as writer:
            if arguments.tokens or arguments.words:
                for row in _shown(token_rows(scorers, reader, reading, arguments.top, arguments.words), "rows"):
                    writer.write(row)
            else:
                for record, row, _ in _shown(line_rows(scorers, reader, reading, weights), "lines"):
                    writer.write({**row, "text": record.text})
    _tell_counts(reader)


def _score_pairs(scorers: "Sequence[Scorer]", arguments: Namespace) -> None:
    from torch_linguist.evaluation.texts.pair_evaluation import evaluate_pairs, read_pairs
    from torch_linguist.evaluation.texts.writing import row_writer
    from torch_linguist.report.text_tables import pair_table

    report = evaluate_pairs(scorers, read_pairs(arguments.pairs, arguments.errors))
    if arguments.to is not None:
        with row_writer(arguments.format, arguments.to, sys.stdout) as writer:
            for label, accuracies in report.accuracies.items():
                for accuracy in accuracies:
                    writer.write({"model": label, **vars(accuracy)})
    make_console().print(pair_table(report))
    for (one, other), p_value in report.p_values.items():
        say(f"{one} and {other}: p = {p_value:.3g} that they differ by chance (exact sign test)")


def _rerank(scorers: "Sequence[Scorer]", arguments: Namespace) -> None:
    from torch_linguist.evaluation.texts import nbest
    from torch_linguist.evaluation.texts.records import plain_lines

    if len(scorers) > 1:
        raise ConfigError("--nbest: takes one run; score with several by a mixture of tl-export")
    named = arguments.nbest_scores
    scores = nbest.read_scores(plain_lines(named), named) if named else None
    hypotheses = nbest.scored_hypotheses(
        nbest.read_nbest(plain_lines(arguments.nbest), scores),
        scorers[0].model,
        scorers[0].tokenizer,
        closed=not arguments.no_eos,
    )
    weight, penalty = arguments.weight, arguments.length_penalty
    if arguments.tune:
        tuned = nbest.tune(hypotheses, nbest.read_keyed(plain_lines(arguments.tune), arguments.tune))
        weight, penalty = tuned.weight, tuned.length_penalty
        _tell(
            f"--weight {weight:g} --length-penalty {penalty:g}: {tuned.word_error_rate:.2%} word errors "
            f"({tuned.errors:,} of {tuned.words:,} words)"
        )
    with _output(arguments.to) as output:
        for hypothesis in nbest.reranked(hypotheses, weight, penalty):
            output.write(nbest.formatted(hypothesis) + "\n")


@contextmanager
def _output(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        yield sys.stdout
        return
    with path.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def _shown(items: Iterable[T], unit: str) -> Iterable[T]:
    """Return the items, with their number per second on the standard error of a terminal."""
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, unit, console=Console(stderr=True), transient=True)


def _tell(message: str) -> None:
    say(message, to_stderr=True)


def _tell_counts(reader: "RecordReader") -> None:
    if reader.skipped:
        _tell(f"left out {reader.skipped:,} rows that cannot be read")
    if reader.empty:
        _tell(f"left out {reader.empty:,} lines without text")


if __name__ == "__main__":
    sys.exit(main())
