"""`tl-train`: from raw text to a trained, measured and exported language model."""

import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from torch_linguist.cli.arguments import CommandText, help_page, parse_arguments
from torch_linguist.cli.entry import SUCCESS, run_command
from torch_linguist.config.build_plan import make_plan
from torch_linguist.config.catalog import GROUPS
from torch_linguist.config.composition import Composition, compose_config
from torch_linguist.config.plain import to_yaml
from torch_linguist.config.repeat import Repetition, repetition, split_config_dirs
from torch_linguist.config.resume import changed_values, find_resumed, resumed_composition
from torch_linguist.distributed.torchrun import (
    from_main_process,
    launched_process_group,
    process_console,
    process_folder,
)

TEXT = CommandText(
    name="tl-train",
    about=(
        "Trains a language model in stages, from raw text to a trained, measured and exported model (see the group "
        "stage). Everything is written to a run folder under outputs/."
    ),
    groups=GROUPS,
    notes=[
        (
            "Exit codes",
            "0 finished; 1 failed; 2 wrong usage; 130 interrupted, 143 by SIGTERM (the first signal saves and scores "
            "what there is, the second stops at once)",
        )
    ],
    examples=[
        ("tl-train", "all stages on the presidential addresses"),
        ("tl-train experiment=debug", "the same in seconds, to see that everything works"),
        ("tl-train data=text data.path=my_book.txt model=gru", "your own text"),
        ("tl-train model=transformer optim.lr=1e-3 optim.weight_decay=0 trainer.max_minutes=10", "no search: train"),
        ("tl-train --config-dir outputs/RUN", "the same run again, from its folder: the same weights"),
        ("tl-train resume=auto name=long trainer.max_minutes=60", "begins, or goes on where it was stopped or killed"),
        ("torchrun --standalone --nproc-per-node=2 --no-python tl-train", "two processes, as one training"),
        ("tl-train stages=[lr_find] model=rnn", "only look for a learning rate"),
        ("tl-grid model=lstm,gru model.hidden_size=128,256", "several runs, one row each in a CSV"),
    ],
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `tl-train`.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command(_train, argv)


def _train(argv: list[str]) -> int:
    arguments = parse_arguments(TEXT, argv)
    if arguments.help:
        print(help_page(TEXT, arguments.overrides, arguments.config_dir))
        return SUCCESS
    config_dirs, repeated = split_config_dirs(arguments.config_dir)
    composition = compose_config(arguments.overrides, config_dirs)
    again = repetition(repeated, composition) if repeated else None
    if again:
        composition = again.composition
    if arguments.cfg:
        print(to_yaml(composition.config), end="")
        return SUCCESS
    with launched_process_group():
        return _carry_out(composition, again)


def _carry_out(composition: Composition, again: Repetition | None) -> int:
    config = composition.config
    found = from_main_process(lambda: _found(config))
    changes: list[str] = []
    if found is not None:
        composition = resumed_composition(Path(found), composition)
        changes = changed_values(Path(found), composition)
    plan = replace(make_plan(composition.config, composition.choices), changes=changes)

    from torch_linguist import pipeline
    from torch_linguist.trainer.callbacks.recorded_progress import read_recorded_progress

    folder = Path(found or from_main_process(lambda: _made(composition)))
    if found is None and again and again.exact:
        plan = replace(plan, recorded_progress=read_recorded_progress(again.folder))
    with process_folder(folder, found is not None) as own:
        summary = pipeline.run(replace(plan, folder=own, resume=found is not None), process_console())
    if summary["status"] == "interrupted":
        return 128 + (summary.get("signal") or signal.SIGINT)
    return SUCCESS


def _found(config: DictConfig) -> str | None:
    """The run that goes on, if one shall."""
    folder = find_resumed(config.resume, Path(config.output_dir), config.name)
    if folder is None:
        return None
    print(f"going on with {folder}")
    return str(folder)


def _made(composition: Composition) -> str:
    """A folder for a new run."""
    from torch_linguist.runs.folders import create_run_folder

    config, choices = composition.config, composition.choices
    default = "-".join(choices[group] for group in ("data", "model") if group in choices)
    return str(create_run_folder(Path(config.output_dir), config.name, default or "run"))


if __name__ == "__main__":
    sys.exit(main())
