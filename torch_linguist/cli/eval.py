"""`tl-eval`: scores runs on a split of their own corpus or another, side by side or mixed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command
from torch_linguist.cli.resume import read_run_config
from torch_linguist.cli.runs import find_run
from torch_linguist.config import compose_config, instantiate
from torch_linguist.errors import ConfigError

if TYPE_CHECKING:
    from torch_linguist.data import Corpus, TokenizedCorpus
    from torch_linguist.evaluation import Score
    from torch_linguist.run import LoadedRun

SPLITS = ("valid", "test")

EXAMPLES = """\
examples:
  tl-eval                                     the newest run under outputs/, on test
  tl-eval outputs/lstm --split valid test
  tl-eval outputs/lstm --data text:my_texts/  another corpus, with the tokenizer of the run
  tl-eval outputs/lstm outputs/ngram --mix    both, and their linear mixture with weights fitted on valid

Every token of the split is scored once, <eos> included. Across tokenizers compare word perplexity and bits per byte.

exit codes: 0 scored; 1 failed; 2 wrong usage; 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `tl-eval`.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command(_eval, argv)


def _eval(argv: list[str]) -> int:
    parser = ArgumentParser("tl-eval", "Scores the best models of runs.", EXAMPLES)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folders (default: the newest one)")
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=["test"], help="which splits (default: test)")
    parser.add_argument("--data", metavar="NAME", help="another corpus: a choice of the group data, or text:PATH")
    parser.add_argument("--mix", action="store_true", help="also their linear mixture, weights by EM on valid")
    parser.add_argument("--stride", type=int, help="new tokens a window of a Transformer (default: half its context)")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), metavar="DIR", help="where the newest run is looked for"
    )
    arguments = parser.parse_intermixed_args(argv)
    folders = [find_run(named, arguments.output_dir) for named in arguments.runs or [None]]
    if not arguments.runs:
        print(f"run: {folders[0]} (the newest)")
    if arguments.mix and len(folders) < 2:
        parser.error("--mix: takes two runs or more")

    from rich.console import Console

    from torch_linguist.evaluation import score, score_mixture
    from torch_linguist.report import score_table
    from torch_linguist.run import load_run

    runs = [load_run(folder) for folder in folders]
    labels = _labels(folders)
    scores: dict[str, dict[str, Score]] = {}
    if arguments.mix:
        _check_mixable(runs)
        corpus = _streams(runs[0], arguments.data)
        weights: list[float] = []
        for split in arguments.split:
            models = [run.model for run in runs]
            mixed = score_mixture(models, corpus.valid, corpus.streams[split], stride=arguments.stride)
            for label, single in zip(labels, mixed.single, strict=True):
                scores.setdefault(label, {})[split] = single
            scores.setdefault("mixture", {})[split] = mixed.mixed
            weights = mixed.weights
        shares = ", ".join(f"{weight:.3f} {label}" for weight, label in zip(weights, labels, strict=True))
        print(f"mixture, fitted on valid: {shares}")
    else:
        for run, label in zip(runs, labels, strict=True):
            corpus = _streams(run, arguments.data)
            for split in arguments.split:
                found = score(run.model, corpus.streams[split], stride=arguments.stride)
                scores.setdefault(label, {})[split] = found
    Console(highlight=False, soft_wrap=True).print(score_table(scores))
    return SUCCESS


def _labels(folders: Sequence[Path]) -> list[str]:
    """What the runs are called in a table: their names, or their whole paths where two share one."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _streams(run: "LoadedRun", data: str | None) -> "TokenizedCorpus":
    """The corpus in the run's own tokens."""
    from torch_linguist.data import prepare

    return prepare(_corpus(run.folder, data), None, tokenizer=run.tokenizer)


def _corpus(folder: Path, data: str | None) -> "Corpus":
    """The run's own corpus, or the one that is named."""
    if data is None:
        config, _ = read_run_config(folder)
    else:
        name, _, path = data.partition(":")
        overrides = [f"data={name}"] + ([f"data.path={path}"] if path else [])
        config = compose_config(overrides).config
    corpus: Corpus = instantiate(config.data, "data")
    return corpus


def _check_mixable(runs: "Sequence[LoadedRun]") -> None:
    for run in runs[1:]:
        if run.tokenizer.to_json() != runs[0].tokenizer.to_json():
            raise ConfigError(
                f"--mix: {run.folder} has another tokenizer than {runs[0].folder}; train both on the same tokens"
            )


if __name__ == "__main__":
    sys.exit(main())
