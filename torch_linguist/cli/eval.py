"""`tl-eval`: scores runs on a split of their own corpus or others, side by side, mixed or adapting."""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command
from torch_linguist.config import named_corpus as corpora
from torch_linguist.errors import ConfigError
from torch_linguist.runs.folders import find_run, run_labels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from torch_linguist.checkpoint.loaded_run import LoadedRun
    from torch_linguist.data import TokenizedCorpus
    from torch_linguist.evaluation.split_evaluation import SplitEvaluation
    from torch_linguist.report.score_tables import ScoredModel

SPLITS = ("valid", "test")

WIDTH = 110
"""Columns of a table in a pipe or a log file."""

TUNING_TOKENS = 20_000
"""Tokens of valid that `--cache` and `--dynamic` are tuned on, unless told otherwise."""

EXAMPLES = """\
examples:
  tl-eval                                     the newest run under outputs/, on test
  tl-eval outputs/lstm --split valid test
  tl-eval outputs/lstm outputs/gru            side by side, with a paired significance test
  tl-eval outputs/lstm outputs/ngram --mix    both, and their linear mixture with weights fitted on valid
  tl-eval outputs/lstm --data my_texts/       another corpus, with the tokenizer of the run
  tl-eval outputs/a outputs/b --data sotu wikitext2:FOLDER text:my_texts/
                                              the matrix of runs and corpora: table, CSV and heatmap
  tl-eval outputs/lstm --cache --dynamic      also with a continuous cache, and learning as it goes

Every token of the split is scored once, <eos> included, and none depends on a batch size. Across tokenizers compare
word perplexity and bits per byte. Intervals are 95%, by bootstrap over documents (blocks of lines where a split has
fewer than 20 documents). Mixtures, caches and dynamic evaluation are tuned on valid alone.

exit codes: 0 scored; 1 failed; 2 wrong usage; 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `tl-eval`.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command(_eval, argv)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-eval", "Scores the best models of runs.", EXAMPLES)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folders (default: the newest one)")
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=["test"], help="which splits (default: test)")
    parser.add_argument("--data", nargs="+", metavar="NAME", default=[None], help=corpora.HELP)
    parser.add_argument("--mix", action="store_true", help="also their linear mixture, weights by EM on valid")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="of the matrix products; bf16 is faster on many machines, and near enough to compare (default: fp32)",
    )
    parser.add_argument("--stride", type=int, help="new tokens a window of a Transformer (default: half its context)")
    parser.add_argument(
        "--cache",
        nargs="?",
        type=int,
        const=2000,
        metavar="SIZE",
        help="also with a continuous cache (Grave et al. 2017) of so many tokens (2000)",
    )
    parser.add_argument(
        "--dynamic", action="store_true", help="also by dynamic evaluation (Krause et al. 2018): learning as it goes"
    )
    parser.add_argument(
        "--segment", type=int, default=64, metavar="N", help="tokens a step of dynamic evaluation (default: 64)"
    )
    parser.add_argument(
        "--tune-tokens",
        type=int,
        default=TUNING_TOKENS,
        metavar="N",
        help=f"tokens of valid that cache and dynamic evaluation are tuned on (default: {TUNING_TOKENS:,})",
    )
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="write scores.csv, and the heatmap of a matrix, there"
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), metavar="DIR", help="where the newest run is looked for"
    )
    return parser


def _eval(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    if arguments.tune_tokens < 1:
        parser.error(f"--tune-tokens={arguments.tune_tokens}: must be at least 1")
    folders = [find_run(named, arguments.output_dir) for named in arguments.runs or [None]]
    if not arguments.runs:
        print(f"run: {folders[0]} (the newest)")
    if arguments.mix and len(folders) < 2:
        parser.error("--mix: takes two runs or more")

    from rich.console import Console

    from torch_linguist.checkpoint.loaded_run import load_run
    from torch_linguist.report import score_tables as report

    runs = [load_run(folder) for folder in folders]
    evaluator = _Evaluator(runs, run_labels(folders), arguments)
    if arguments.mix:
        _check_mixable(runs)
    entries = [entry for spec in dict.fromkeys(arguments.data) for entry in evaluator.entries(spec)]
    comparisons = report.compare_entries(entries)
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=max(console.width, WIDTH))
    for line in report.policy_lines(entries):
        console.print(line, markup=False)
    names = list(dict.fromkeys(entry.corpus for entry in entries))
    for name in names:
        if len(names) > 1:
            console.print(f"\n{name}", markup=False, style="bold")
        for table in report.evaluation_tables([entry for entry in entries if entry.corpus == name]):
            console.print(table)
    if comparisons:
        console.print(report.comparison_table(comparisons))
    _keep(console, entries, arguments)
    return SUCCESS


def _keep(console: "Console", entries: "list[ScoredModel]", arguments: Namespace) -> None:
    """Writes what is asked for: CSV by `--to`, and for several corpora the matrix."""
    from torch_linguist.report import score_tables as report
    from torch_linguist.runs.folders import create_run_folder

    matrix = len(arguments.data) > 1
    if arguments.to is None and not matrix:
        return
    folder = arguments.to or create_run_folder(arguments.output_dir, None, "eval")
    folder.mkdir(parents=True, exist_ok=True)
    files = report.write_scores(entries, report.compare_entries(entries), folder)
    if matrix:
        for split in arguments.split:
            console.print(report.matrix_table(entries, split))
            files.append(folder / f"matrix-{split}.png")
            report.plot_matrix(entries, split, files[-1])
    console.print("written: " + ", ".join(map(str, files)), markup=False)


class _Evaluator:
    """Scores runs; a split of a corpus is scored once a run, however often it is asked for."""

    def __init__(self, runs: "Sequence[LoadedRun]", labels: Sequence[str], arguments: Namespace) -> None:
        self.runs = dict(zip(labels, runs, strict=True))
        self.arguments = arguments
        self._known: dict[tuple[str, str, str], SplitEvaluation] = {}

    def entries(self, spec: str | None) -> "Iterator[ScoredModel]":
        """Every score on one corpus (None: each run's own): the runs, their mixture, the runs adapting."""
        prepared = {label: self._prepare(run, spec) for label, run in self.runs.items()}
        weights = self._weights(prepared) if self.arguments.mix else []
        for split in self.arguments.split:
            for label in self.runs:
                yield self._entry(label, label, prepared[label], split, self._plain(label, prepared[label], split))
            if weights:
                yield self._mixed(prepared, split, weights)
        for label in self.runs:
            yield from self._adapted(label, *prepared[label])

    def _prepare(self, run: "LoadedRun", spec: str | None) -> "tuple[str, TokenizedCorpus]":
        from torch_linguist.data import prepare

        source = corpora.find_corpus(spec, run.folder)
        name = source.name if spec is None else corpora.corpus_label(spec)
        return name, prepare(source, None, tokenizer=run.tokenizer)

    def _plain(self, label: str, prepared: "tuple[str, TokenizedCorpus]", split: str) -> "SplitEvaluation":
        from torch_linguist.evaluation.split_evaluation import evaluate_split

        key = (label, prepared[1].fingerprint, split)
        if key not in self._known:
            run = self.runs[label]
            stream = prepared[1].streams[split]
            asked = self.arguments
            self._known[key] = evaluate_split(
                run.model, stream, run.tokenizer.unk_id, stride=asked.stride, precision=asked.precision
            )
        return self._known[key]

    def _entry(
        self, label: str, shown: str, prepared: "tuple[str, TokenizedCorpus]", split: str, evaluation: "SplitEvaluation"
    ) -> "ScoredModel":
        from torch_linguist.evaluation.split_evaluation import reading_of
        from torch_linguist.report.score_tables import ScoredModel

        run = self.runs[label]
        reading = reading_of(run.model, self.arguments.stride, self.arguments.precision)
        return ScoredModel(shown, prepared[0], split, run.tokenizer.to_json(), reading, evaluation)

    def _weights(self, prepared: "dict[str, tuple[str, TokenizedCorpus]]") -> list[float]:
        from torch_linguist.evaluation.mixture_scoring import fitted_weights

        weights = fitted_weights([self._plain(label, prepared[label], "valid").nll for label in self.runs])
        shares = ", ".join(f"{weight:.3f} {label}" for weight, label in zip(weights, self.runs, strict=True))
        print(f"mixture, fitted on valid: {shares}")
        return weights

    def _mixed(
        self, prepared: "dict[str, tuple[str, TokenizedCorpus]]", split: str, weights: Sequence[float]
    ) -> "ScoredModel":
        from dataclasses import replace

        from torch_linguist.evaluation.mixture_scoring import mixed_nll
        from torch_linguist.evaluation.split_evaluation import SplitEvaluation

        parts = [self._plain(label, prepared[label], split) for label in self.runs]
        mixed = mixed_nll([part.nll for part in parts], weights)
        label = next(iter(self.runs))
        evaluation = SplitEvaluation(parts[0].stream, mixed, parts[0].unk_id)
        return replace(
            self._entry(label, "mixture", prepared[label], split, evaluation), reading="each run reads as it does alone"
        )

    def _adapted(self, label: str, name: str, corpus: "TokenizedCorpus") -> "Iterator[ScoredModel]":
        from torch_linguist.evaluation.split_evaluation import SplitEvaluation

        unk_id = self.runs[label].tokenizer.unk_id
        for kind, wanted, scorer in (
            ("cache", self.arguments.cache is not None, self._cached),
            ("dynamic", self.arguments.dynamic, self._learning),
        ):
            if wanted:
                for split, nll in scorer(label, corpus):
                    evaluation = SplitEvaluation(corpus.streams[split], nll, unk_id)
                    yield self._entry(label, f"{label} + {kind}", (name, corpus), split, evaluation)

    def _cached(self, label: str, corpus: "TokenizedCorpus") -> "Iterator[tuple[str, NDArray[np.float64]]]":
        from torch_linguist.evaluation.continuous_cache import cached_nll, tune_cache

        model, given = self.runs[label].model, self.arguments
        best, tried = tune_cache(
            model, corpus.valid, size=given.cache, max_tokens=given.tune_tokens, stride=given.stride
        )
        self._tell(f"{label} + cache", f"theta {best.theta:g}, share {best.share:g}, {best.size} tokens", tried, corpus)
        for split in given.split:
            yield split, cached_nll(model, corpus.streams[split], best, stride=given.stride)

    def _learning(self, label: str, corpus: "TokenizedCorpus") -> "Iterator[tuple[str, NDArray[np.float64]]]":
        from torch_linguist.evaluation.dynamic_evaluation import dynamic_nll, gradient_scale, tune_dynamic

        model, given = self.runs[label].model, self.arguments
        scale = gradient_scale(model, corpus.train, segment=given.segment)
        best, tried = tune_dynamic(model, corpus.valid, scale, segment=given.segment, max_tokens=given.tune_tokens)
        found = f"learning rate {best.learning_rate:g}, decay {best.decay:g}, {best.segment} tokens a step"
        self._tell(f"{label} + dynamic", found, tried, corpus)
        for split in given.split:
            yield split, dynamic_nll(model, corpus.streams[split], best, scale)

    def _tell(self, name: str, found: str, tried: Sequence[tuple[object, float]], corpus: "TokenizedCorpus") -> None:
        losses = [loss for _, loss in tried]
        tokens = min(self.arguments.tune_tokens, len(corpus.valid))
        print(
            f"{name}: {found}; the best of {len(tried)} on the first {tokens:,} tokens of valid "
            f"(loss {min(losses):.4f}; the worst {max(losses):.4f})"
        )


def _check_mixable(runs: "Sequence[LoadedRun]") -> None:
    for run in runs[1:]:
        if run.tokenizer.to_json() != runs[0].tokenizer.to_json():
            raise ConfigError(
                f"--mix: {run.folder} has another tokenizer than {runs[0].folder}; train both on the same tokens"
            )


if __name__ == "__main__":
    sys.exit(main())
