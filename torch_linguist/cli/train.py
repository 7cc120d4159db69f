"""`tl-train`: from raw text to a trained, measured and exported language model."""

import signal
import sys
from collections.abc import Sequence

from torch_linguist.cli.entry import SUCCESS, parse_arguments, run_command, say
from torch_linguist.config.catalog import GROUPS
from torch_linguist.config.help_page import CommandText, help_page
from torch_linguist.config.plain import to_yaml
from torch_linguist.config.training_run import compose_training, run_training
from torch_linguist.distributed.torchrun import launched_process_group

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
    """Run `tl-train`."""
    return run_command(_train, argv)


def _train(argv: list[str]) -> int:
    arguments = parse_arguments(TEXT, argv)
    if arguments.help:
        say(help_page(TEXT, arguments.overrides, arguments.config_dir))
        return SUCCESS
    composition, repeated = compose_training(arguments.overrides, arguments.config_dir)
    if arguments.cfg:
        say(to_yaml(composition.config), end="")
        return SUCCESS
    with launched_process_group():
        summary = run_training(composition, repeated, trust_data=arguments.trust_data, note=say)
    if summary["status"] == "interrupted":
        return 128 + (summary.get("signal") or signal.SIGINT)
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
