"""The arguments of the commands that take overrides, and their help page."""

import textwrap
from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from torch_linguist.cli.entry import ArgumentParser
from torch_linguist.config.catalog import GROUPS, Choice, find_groups
from torch_linguist.config.composition import Composition, compose_config
from torch_linguist.config.signatures import INTERPRETED, show

WIDTH = 110

KEYS: Mapping[str, str] = {
    "name": "of the run folder; null makes one up",
    "seed": "of everything that is drawn at random",
    "stages": "stages to run; * marks them above",
    "resume": "true, auto (the newest run) or a run folder: go on with an earlier run",
    "output_dir": "where run folders are made",
    "data.path": "a file or folder of your own instead of a download",
    "optim.lr": "auto: lr_find chooses; a number turns that step off",
    "optim.weight_decay": "auto: grid chooses; a number turns that step off",
    "trainer.batch_size": "parallel streams or windows a step",
    "trainer.sequence_length": "tokens of each a step",
    "trainer.gradient_clip": "largest gradient norm; null for none",
    "trainer.accumulate": "batches that make one update",
    "trainer.precision": "auto, fp32 or bf16",
    "trainer.device": "auto, cpu, cuda, mps …",
    "trainer.max_epochs": "limit; the first limit that is reached ends the training",
    "trainer.max_steps": "limit, in updates",
    "trainer.max_tokens": "limit, in training tokens",
    "trainer.max_minutes": "limit, in wall-clock minutes",
    "trainer.eval_every": "updates between validations; null chooses",
    "trainer.patience": "validations without improvement before training stops; null never does",
}
"""The keys that people set most, and what they mean."""


@dataclass(frozen=True)
class CommandText:
    """What a help page says of a command beside the groups and keys.

    Attributes:
        name: of the command.
        about: what it does, in a sentence or two.
        examples: pairs of a command line and what it does.
        groups: the configuration groups that matter to it.
        cfg: what `--cfg` does.
        notes: further paragraphs, such as its own keys and exit codes.
        root: the root file of its configuration.
    """

    name: str
    about: str
    examples: Sequence[tuple[str, str]]
    groups: Sequence[str]
    cfg: str = "prints the whole configuration with your overrides in place, and stops"
    notes: Sequence[tuple[str, str]] = ()
    root: str = "train"


def parse_arguments(text: CommandText, argv: Sequence[str]) -> Namespace:
    """Reads the arguments of a command that takes overrides.

    Args:
        text: of the command.
        argv: the arguments.

    Returns:
        `overrides` (list of texts), `config_dir` (list of paths), `cfg`, `help` and `debug`.

    Raises:
        ConfigError: an option does not exist.
    """
    parser = ArgumentParser(text.name, text.about, add_help=False)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    parser.add_argument("--config-dir", action="append", type=Path, default=[], metavar="DIR")
    parser.add_argument("--cfg", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    return parser.parse_intermixed_args(argv)


def help_page(text: CommandText, overrides: Sequence[str], config_dirs: Sequence[Path]) -> str:
    """The help page: groups with their choices, the most used keys with their values, examples.

    Args:
        text: of the command.
        overrides: are in place in the values that the page shows.
        config_dirs: the user's folders; their choices are listed too.
    """
    composition = compose_config(overrides, config_dirs, text.root)
    groups = {name: choices for name, choices in find_groups(config_dirs).items() if choices}
    shown = [name for name in groups if name in text.groups or name not in GROUPS]
    parts = [
        f"usage: {text.name} [OVERRIDE ...] [--config-dir DIR] [--cfg] [--debug] [--help]",
        textwrap.fill(text.about, WIDTH),
        "Groups: GROUP=CHOICE takes another choice (* is in force)",
        "\n".join(_group_lines(name, groups[name], _in_force(composition, name)) for name in shown),
        "Keys: KEY=VALUE sets a value; those used most, with what is in force",
        _key_lines(composition.config),
        *_node_lines(composition, shown),
        *(f"{title}\n{textwrap.indent(_wrapped(body), '  ')}" for title, body in text.notes),
        "Options\n" + _OPTIONS.format(cfg=text.cfg),
        "Examples\n" + "\n".join(f"  {line}\n      {meaning}" for line, meaning in text.examples),
    ]
    return "\n\n".join(parts)


_OPTIONS = """\
  --config-dir DIR  adds your own groups: DIR/model/mine.yaml makes model=mine; may be given several times.
                    A run folder instead repeats that run (tl-train)
  --cfg             {cfg}
  --debug           shows the traceback of an error (as HYDRA_FULL_ERROR=1 does)
  -h, --help        this page; overrides beside it are in place in what it shows"""


def _in_force(composition: Composition, group: str) -> list[str]:
    """Return the choices of a group that are in force: several callbacks, or the stages that run."""
    if group == "stage":
        return list(composition.config.get("stages", ()))
    return composition.choices.get(group, "").split(",")


def _group_lines(group: str, choices: Mapping[str, Choice], in_force: Collection[str]) -> str:
    width = max(len(name) for name in choices)
    lines = []
    for index, choice in enumerate(choices.values()):
        lead = f"  {group if index == 0 else '':<11} {'*' if choice.name in in_force else ' '} {choice.name:<{width}}  "
        lines.append(lead + textwrap.shorten(choice.summary, max(20, WIDTH - len(lead)), placeholder=" …"))
    return "\n".join(line.rstrip() for line in lines)


def _key_lines(config: DictConfig) -> str:
    lines = []
    for key, meaning in KEYS.items():
        value = _value(config, key)
        if value is not None:
            lines.append(
                f"  {f'{key}={value}':<44} {meaning}" if len(value) < 40 else f"  {key}={value}\n{'':<47}{meaning}"
            )
    return "\n".join(lines)


def _node_lines(composition: Composition, groups: Sequence[str]) -> list[str]:
    """For each choice in force, its keys that the list of the most used ones does not name."""
    parts = []
    for group in groups:
        node = OmegaConf.select(composition.config, group)
        if not isinstance(node, DictConfig):
            continue
        names = [name for name in map(str, node) if name not in INTERPRETED and f"{group}.{name}" not in KEYS]
        values = [f"{group}.{name}={_value(composition.config, f'{group}.{name}')}" for name in names]
        if values:
            title = f"Further keys of {group}={composition.choices.get(group, '')}"
            parts.append(f"{title}\n{textwrap.indent(_filled(values), '  ')}")
    return parts


def _value(config: DictConfig, key: str) -> str | None:
    """A key's value as a person would type it; None where there is no such key."""
    parent, _, leaf = key.rpartition(".")
    node: Any = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig) or leaf not in node.keys():  # noqa: SIM118 - a missing value is a key too
        return None
    if OmegaConf.is_missing(node, leaf):
        return "???"
    value = node[leaf]
    return show(OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)


def _filled(words: Sequence[str]) -> str:
    return textwrap.fill("  ".join(words), WIDTH - 2, break_long_words=False, break_on_hyphens=False)


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.fill(line, WIDTH - 2) for line in text.splitlines())


__all__ = ["CommandText", "help_page", "parse_arguments"]
