"""`tl-score`: scores lines, tokens, minimal pairs and n-best lists, and filters corpora by perplexity."""

import itertools
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command, say
from torch_linguist.errors import ConfigError
from torch_linguist.runs.folders import find_run, run_labels

if TYPE_CHECKING:
    from torch_linguist.evaluation.texts.records import Record, RecordReader
    from torch_linguist.evaluation.texts.rows import Reading, Scorer

T = TypeVar("T")

EXAMPLES = """\
examples:
  tl-score outputs/lstm sentences.txt                    a row a line: log-probability, perplexity, …
  cat lines.txt | tl-score outputs/lstm                  from standard input
  tl-score outputs/lstm reviews.csv --column body        a column of a table; the others are kept
  tl-score outputs/lstm story.txt --words --carry        surprisal of each word, the lines as one text
  tl-score outputs/lstm outputs/ngram lines.txt --mix    a column a run, and their mixture
  tl-score outputs/lstm --pairs blimp/                   minimal pairs: accuracy by group
  tl-score outputs/lstm --nbest lists.txt --weight 0.6   n-best lists ranked anew
  tl-score outputs/ngram crawl.txt --keep-share 0.5      the half of a corpus with the lower perplexity

A line by itself starts from <eos>, the end of the line before it, and is closed by <eos>. KenLM's `query` starts from
<s> and closes with </s>, and prints logarithms to base 10 (--log 10). Folders among the arguments are runs, all others
are files.

exit codes: 0 scored; 1 failed; 2 wrong usage; 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `tl-score`.

    Args:
        argv: command-line arguments; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command(_score, argv)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-score", "Scores any text by the best models of runs.", EXAMPLES)
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="RUN|FILE",
        help="run folders (default: the newest run), then files (default: -)",
    )
    source = parser.add_argument_group("what is read")
    source.add_argument("--column", default="text", help="column of a .csv, .tsv, .jsonl or .parquet file (text)")
    source.add_argument("--errors", default="strict", metavar="HOW", help="bad rows: strict, replace or skip (strict)")
    source.add_argument("--skip-empty", action="store_true", help="leave lines without text out (default: <eos> alone)")
    reading = parser.add_argument_group("how it is read")
    reading.add_argument("--carry", action="store_true", help="all lines are one running text")
    reading.add_argument("--document-column", metavar="NAME", help="rows with the same value are one running text")
    reading.add_argument("--no-eos", action="store_true", help="score fragments: no <eos> closes a line")
    detail = parser.add_argument_group("what is written")
    detail.add_argument("--tokens", action="store_true", help="a row a token: surprisal, rank, entropy, offsets")
    detail.add_argument("--words", action="store_true", help="a row a word: its tokens added up")
    detail.add_argument("--top", type=int, default=0, metavar="K", help="with --tokens: the K most probable tokens")
    detail.add_argument("--log", default="e", metavar="BASE", help="base of log-probabilities: e, 10 or 2 (e)")
    detail.add_argument("--format", default="tsv", help="tsv, jsonl, csv or parquet (tsv)")
    detail.add_argument("--to", type=Path, metavar="FILE", help="write there instead of to standard output")
    several = parser.add_argument_group("several runs")
    several.add_argument("--mix", action="store_true", help="also their linear mixture")
    several.add_argument("--weights", type=float, nargs="+", metavar="W", help="weights of the mixture (equal ones)")
    tasks = parser.add_argument_group("tasks")
    tasks.add_argument("--pairs", nargs="+", metavar="FILE", help="minimal pairs: BLiMP's JSON lines, or two columns")
    tasks.add_argument("--nbest", metavar="FILE", help="n-best lists: Moses, JSON lines or Kaldi's text")
    tasks.add_argument("--nbest-scores", metavar="FILE", help="scores of Kaldi's hypotheses: KEY SCORE a line")
    tasks.add_argument("--weight", type=float, default=0.5, metavar="W", help="of the language model (0.5)")
    tasks.add_argument("--length-penalty", type=float, default=0.0, metavar="P", help="added for each word (0)")
    tasks.add_argument("--tune", metavar="FILE", help="references (KEY WORDS a line): find weight and length penalty")
    tasks.add_argument("--keep-below", type=float, metavar="PPL", help="write the texts up to this perplexity")
    tasks.add_argument("--keep-share", type=float, metavar="X", help="write this share, the lowest perplexities")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), metavar="DIR", help="where the newest run is looked for"
    )
    return parser


def _score(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    _check(arguments, parser)
    named = {name: _is_run(name, arguments.output_dir) for name in arguments.arguments}
    folders = [Path(name) for name, is_run in named.items() if is_run]
    files = [name for name, is_run in named.items() if not is_run]
    for name in files:
        if name != "-" and not Path(name).is_file():
            raise ConfigError(f"{name}: there is no such run folder or file")
    runs = [find_run(named, arguments.output_dir) for named in folders] or [find_run(None, arguments.output_dir)]
    if not folders:
        _tell(f"run: {runs[0]} (the newest)")

    from torch_linguist.checkpoint import load_run
    from torch_linguist.evaluation.texts.rows import Scorer

    loaded = [load_run(folder) for folder in runs]
    scorers = [Scorer(label, run.model, run.tokenizer) for label, run in zip(run_labels(runs), loaded, strict=True)]
    if arguments.pairs:
        return _pairs(scorers, arguments)
    if arguments.nbest:
        return _nbest(scorers, arguments)
    return _texts(scorers, files or ["-"], arguments)


def _is_run(name: str, output_dir: Path) -> bool:
    """Whether an argument is a folder, or the name of one under `output_dir`; a file of that name comes first."""
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


def _reading(arguments: Namespace) -> "Reading":
    from torch_linguist.evaluation.texts.rows import Reading

    return Reading(not arguments.no_eos, arguments.carry, arguments.document_column, arguments.log)


def _texts(scorers: "Sequence[Scorer]", files: Sequence[str], arguments: Namespace) -> int:
    from torch_linguist.evaluation.texts.records import RecordReader
    from torch_linguist.evaluation.texts.rows import line_rows, token_rows
    from torch_linguist.evaluation.texts.writing import row_writer

    reader = RecordReader(files, arguments.column, arguments.errors, arguments.skip_empty)
    reading = _reading(arguments)
    weights = arguments.weights or ([1 / len(scorers)] * len(scorers) if arguments.mix else None)
    _tell(f"{reading.conventions()}; log-probabilities to base {arguments.log}")
    if arguments.keep_below is not None or arguments.keep_share is not None:
        return _filtered(scorers, reader, reading, weights, arguments)
    with row_writer(arguments.format, arguments.to, sys.stdout) as writer:
        if arguments.tokens or arguments.words:
            for row in _shown(token_rows(scorers, reader, reading, arguments.top, arguments.words), "rows"):
                writer.write(row)
        else:
            for record, row, _ in _shown(line_rows(scorers, reader, reading, weights), "lines"):
                writer.write({**row, "text": record.text})
    _tell_counts(reader)
    return SUCCESS


def _filtered(
    scorers: "Sequence[Scorer]",
    reader: "RecordReader",
    reading: "Reading",
    weights: Sequence[float] | None,
    arguments: Namespace,
) -> int:
    from torch_linguist.evaluation.texts.filtering import threshold_of_share
    from torch_linguist.evaluation.texts.rows import line_rows

    scored = _shown(line_rows(scorers, reader, reading, weights), "lines")
    texts = ((record, score.perplexity) for record, _, score in scored)
    kept = total = 0
    # The share is known when all texts are scored: they wait on the disk, not in memory.
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as waiting:
        threshold = arguments.keep_below
        found = texts
        if threshold is None:
            perplexities: list[float] = []
            for record, perplexity in texts:
                waiting.write(record.text + "\n")
                perplexities.append(perplexity)
            threshold = threshold_of_share(perplexities, arguments.keep_share)
            waiting.seek(0)
            found = zip(_records(waiting), perplexities, strict=True)  # type: ignore[assignment]
        output = sys.stdout if arguments.to is None else arguments.to.open("w", encoding="utf-8", newline="\n")
        try:
            for record, perplexity in found:
                total += 1
                if perplexity <= threshold:
                    kept += 1
                    output.write(record.text + "\n")
        finally:
            if output is not sys.stdout:
                output.close()
    share = kept / total if total else 0.0
    _tell(f"kept {kept:,} of {total:,} texts ({share:.1%}) with a perplexity of at most {threshold:.6g}")
    _tell_counts(reader)
    return SUCCESS


def _records(lines: Iterable[str]) -> "Iterator[Record]":
    from torch_linguist.evaluation.texts.records import Record

    return (Record(line.removesuffix("\n")) for line in lines)


def _pairs(scorers: "Sequence[Scorer]", arguments: Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from torch_linguist.evaluation.texts.pair_evaluation import evaluate_pairs, read_pairs
    from torch_linguist.evaluation.texts.writing import row_writer

    report = evaluate_pairs(scorers, read_pairs(arguments.pairs, arguments.errors))
    if arguments.to is not None:
        with row_writer(arguments.format, arguments.to, sys.stdout) as writer:
            for label, accuracies in report.accuracies.items():
                for accuracy in accuracies:
                    writer.write({"model": label, **vars(accuracy)})
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("group")
    for label in report.accuracies:
        table.add_column(label, justify="right")
        table.add_column("95% interval", justify="right")
    for name in ("ties", "unknown", "pairs"):
        table.add_column(name, justify="right")
    for rows in zip(*report.accuracies.values(), strict=True):
        cells = [cell for one in rows for cell in (f"{one.accuracy:.1%}", f"{one.low:.1%}–{one.high:.1%}")]
        counts = ["/".join(str(getattr(one, name)) for one in rows) for name in ("ties", "unknown")]
        table.add_row(rows[0].group, *cells, *counts, str(rows[0].pairs))
    Console(highlight=False, markup=False).print(table)
    for (one, other), p_value in report.p_values.items():
        print(f"{one} and {other}: p = {p_value:.3g} that they differ by chance (exact sign test)")
    return SUCCESS


def _nbest(scorers: "Sequence[Scorer]", arguments: Namespace) -> int:
    from torch_linguist.evaluation.texts import nbest
    from torch_linguist.evaluation.texts.nbest_scoring import scored_hypotheses

    if len(scorers) > 1:
        raise ConfigError("--nbest: takes one run; score with several by a mixture of tl-export")
    scores = None
    if arguments.nbest_scores:
        keyed = nbest.read_keyed(_lines(arguments.nbest_scores), arguments.nbest_scores)
        scores = {key: _number(value, key) for key, value in keyed.items()}
    scorer = scorers[0]
    hypotheses = scored_hypotheses(
        nbest.read_nbest(_lines(arguments.nbest), scores), scorer.model, scorer.tokenizer, closed=not arguments.no_eos
    )
    weight, penalty = arguments.weight, arguments.length_penalty
    if arguments.tune:
        tuned = nbest.tune(hypotheses, nbest.read_keyed(_lines(arguments.tune), arguments.tune))
        weight, penalty = tuned.weight, tuned.length_penalty
        _tell(
            f"--weight {weight:g} --length-penalty {penalty:g}: {tuned.word_error_rate:.2%} word errors "
            f"({tuned.errors:,} of {tuned.words:,} words)"
        )
    output = sys.stdout if arguments.to is None else arguments.to.open("w", encoding="utf-8", newline="\n")
    try:
        for hypothesis in nbest.reranked(hypotheses, weight, penalty):
            output.write(nbest.formatted(hypothesis) + "\n")
    finally:
        if output is not sys.stdout:
            output.close()
    return SUCCESS


def _number(text: str, key: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--nbest-scores: {key} has {text!r}, not a number") from None


def _lines(name: str) -> Iterator[str]:
    from torch_linguist.evaluation.texts.records import RecordReader

    # Read as plain lines, whatever the name ends in.
    reader = RecordReader([name])
    return (line for _, line in reader.lines(name))


def _shown(items: Iterable[T], unit: str) -> Iterator[T]:
    """The items, with a count on a terminal's standard error."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} " + unit), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        for number, item in zip(itertools.count(1), items, strict=False):
            if number % 64 == 0:
                progress.update(task, completed=number)
            yield item


def _tell(message: str) -> None:
    say(message, to_stderr=True)


def _tell_counts(reader: "RecordReader") -> None:
    if reader.skipped:
        _tell(f"left out {reader.skipped:,} rows that cannot be read")
    if reader.empty:
        _tell(f"left out {reader.empty:,} lines without text")


if __name__ == "__main__":
    sys.exit(main())
