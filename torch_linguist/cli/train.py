"""`tl-train`: from raw text to a trained, measured and exported language model."""

import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from torch_linguist.cli.arguments import CommandText, help_page, parse_arguments
from torch_linguist.cli.entry import SUCCESS, run_command, say
from torch_linguist.config.build_plan import make_plan
from torch_linguist.config.catalog import GROUPS
from torch_linguist.config.composition import Composition, compose_config
from torch_linguist.config.data_trust import check_data_trusted, remember_data
from torch_linguist.config.overrides import parse_overrides
from torch_linguist.config.plain import to_yaml
from torch_linguist.config.repeat import Repetition, repetition, split_config_dirs
from torch_linguist.config.resume import changed_values, find_resumed, resumed_composition
from torch_linguist.distributed.torchrun import (
    from_main_process,
    launched_process_group,
    launched_rank,
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
    flags={"--trust-data": "open the corpus that a resumed or repeated run names, even if you have not used it here"},
    notes=[
        (
            "Exit codes",
            "0 finished; 1 failed; 2 wrong usage; 130 interrupted, 143 by SIGTERM (the first signal saves and scores "
            "the model so far, the second stops at once)",
        )
    ],
    examples=[
        ("tl-train", "all stages on the presidential addresses"),
        ("tl-train experiment=debug", "the same in seconds, to see that everything works"),
        ("tl-train data=text data.path=my_book.txt model=gru", "your own text"),
        (
            "tl-train model=transformer optim.lr=1e-3 optim.weight_decay=0 trainer.max_minutes=10",
            "train without a search",
        ),
        ("tl-train --config-dir outputs/RUN", "repeat a run from its folder: the same weights"),
        ("tl-train resume=auto name=long trainer.max_minutes=60", "start, or resume where it was stopped or killed"),
        ("torchrun --standalone --nproc-per-node=2 --no-python tl-train", "one training on two processes"),
        ("tl-train stages=[lr_find] model=rnn", "only find a learning rate"),
        ("tl-grid model=lstm,gru model.hidden_size=128,256", "several runs, one row each in a CSV"),
    ],
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tl-train`.

    Args:
        argv: command-line arguments; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command(_train, argv)


def _train(argv: list[str]) -> int:
    arguments = parse_arguments(TEXT, argv)
    if arguments.help:
        say(help_page(TEXT, arguments.overrides, arguments.config_dir))
        return SUCCESS
    config_dirs, repeated = split_config_dirs(arguments.config_dir)
    composition = compose_config(arguments.overrides, config_dirs)
    again = repetition(repeated, composition) if repeated else None
    if again:
        composition = again.composition
    if arguments.cfg:
        say(to_yaml(composition.config), end="")
        return SUCCESS
    with launched_process_group():
        return _carry_out(composition, again, arguments.trust_data)


def _carry_out(composition: Composition, again: Repetition | None, trust_data: bool) -> int:
    config = composition.config
    found = from_main_process(lambda: _found(config))
    changes: list[str] = []
    if found is not None:
        composition = resumed_composition(Path(found), composition)
        changes = changed_values(Path(found), composition)
    source = Path(found) if found else again.folder if again else None
    _check_data(composition, source, trust_data)
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


def _check_data(composition: Composition, source: Path | None, trust_data: bool) -> None:
    """Open what a run folder names only if the user has named it too, or trusts the folder."""
    named = {override.key_or_group.partition(".")[0] for override in parse_overrides(composition.overrides)}
    if source is not None and not trust_data and "data" not in named:
        check_data_trusted(composition.config, source)
    elif launched_rank() == 0:
        remember_data(composition.config)


def _found(config: DictConfig) -> str | None:
    """Return the run to resume, if any."""
    folder = find_resumed(config.resume, Path(config.output_dir), config.name)
    if folder is None:
        return None
    say(f"resuming {folder}")
    return str(folder)


def _made(composition: Composition) -> str:
    """Create the folder of a new run."""
    from torch_linguist.runs.folders import create_run_folder

    config, choices = composition.config, composition.choices
    default = "-".join(choices[group] for group in ("data", "model") if group in choices)
    return str(create_run_folder(Path(config.output_dir), config.name, default or "run"))


if __name__ == "__main__":
    sys.exit(main())
