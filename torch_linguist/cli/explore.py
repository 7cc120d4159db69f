"""`tl-explore`: a corpus as a page of statistics and figures."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from torch_linguist.cli.entry import SUCCESS, parse_arguments, run_command, say
from torch_linguist.config.catalog import GROUPS
from torch_linguist.config.checking.node_checks import check_exploration
from torch_linguist.config.composition import compose_config
from torch_linguist.config.help_page import CommandText, help_page
from torch_linguist.config.instantiation import instantiate
from torch_linguist.config.overrides import parse_overrides
from torch_linguist.config.plain import to_yaml
from torch_linguist.errors import ConfigError

OWN_GROUPS = ("data", "tokenizer")
"""Configuration groups of this command."""

TEXT = CommandText(
    name="tl-explore",
    about=(
        "Describes a corpus: random samples, lengths, metadata, words and n-grams, Zipf and Heaps, coverage and "
        "out-of-vocabulary rates, duplicates, and whether the splits agree. Writes one page that opens from disk, the "
        "same figures as PNG, every table as CSV, and the splits as CSV, into a folder under outputs/."
    ),
    groups=OWN_GROUPS,
    root="explore",
    notes=[
        (
            "Its own keys",
            "explore.sample_mebibytes=32: text explored per split; a longer split is sampled\n"
            "explore.scan_mebibytes=1024: text read per split to draw the sample; null reads everything\n"
            "explore.samples=4: excerpts per split\n"
            "explore.top=25: words and n-grams shown\n"
            "explore.max_order=3: longest n-grams\n"
            "explore.max_min_frequency=20: largest min_frequency whose out-of-vocabulary rate is shown\n"
            'explore.word_cloud=true: needs pip install "torch-linguist[explore]"',
        ),
    ],
    examples=[
        ("tl-explore", "the presidential addresses"),
        ("tl-explore data=wikitext2 data.path=../shared/data/wikitext-2", "WikiText-2 from a local folder"),
        ("tl-explore data=text data.path=my_book.txt tokenizer=bpe", "your own text, with tokens per word"),
        ("tl-explore data=sotu data.seed=7 name=sotu-split-7", "another random split"),
    ],
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tl-explore`."""
    return run_command(_explore, argv)


def _explore(argv: list[str]) -> int:
    arguments = parse_arguments(TEXT, argv)
    _check_groups(arguments.overrides)
    if arguments.help:
        say(help_page(TEXT, arguments.overrides, arguments.config_dir))
        return SUCCESS
    composition = compose_config(arguments.overrides, arguments.config_dir, TEXT.root)
    if arguments.cfg:
        say(to_yaml(composition.config), end="")
        return SUCCESS
    config = check_exploration(composition.config)

    from torch_linguist.explore import explore

    commands = _next_commands(arguments.overrides)
    found = explore(
        corpus=instantiate(config.data, "data"),
        tokenizer_trainer=instantiate(config.tokenizer, "tokenizer"),
        output_dir=Path(config.output_dir),
        name=config.name,
        settings=instantiate(config.explore, "explore"),
        seed=config.seed,
        report=say,
        config_text=to_yaml(config, composition.choices),
        commands=commands,
    )
    whole = "" if found.is_whole else "; a sample of the corpus, see the page"
    say(f"\npage: {found.page} ({found.seconds:.0f} s{whole})")
    for command, _ in commands:
        say(f"  {command}")
    return SUCCESS


def _next_commands(overrides: Sequence[str]) -> list[tuple[str, str]]:
    kept = [override for override in overrides if override.lstrip("+~").startswith(("data", "tokenizer"))]
    return [(shlex.join(["tl-train", *kept]), "Train a model on this corpus:")]


def _check_groups(overrides: Sequence[str]) -> None:
    """Refuse choices of groups that this command does not use."""
    for override in parse_overrides(overrides):
        group = override.key_or_group.split(".")[0]
        if group in GROUPS and group not in OWN_GROUPS:
            raise ConfigError(f"{override.input_line}: tl-explore takes only data=…, tokenizer=… and their keys")


if __name__ == "__main__":
    sys.exit(main())
