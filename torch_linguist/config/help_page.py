"""Help pages of the commands that take overrides: groups, keys with their current values, examples."""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from torch_linguist.config.catalog import GROUPS, SIDE_BY_SIDE, Choice, find_groups
from torch_linguist.config.checking.signatures import INTERPRETED, show
from torch_linguist.config.composition import Composition, compose_config

WIDTH = 110
"""Width of a page, in characters."""

KEYS: Mapping[str, str] = {
    "name": "name of the run folder; null generates one",
    "seed": "random seed",
    "stages": "stages to run; * marks them above",
    "resume": "true, auto (the newest run) or a run folder: resume an earlier run",
    "output_dir": "parent of the run folders",
    "data.path": "a file or folder of your own instead of a download",
    "optim.lr": "auto: lr_find chooses; a number skips that step",
    "optim.weight_decay": "auto: grid chooses; a number skips that step",
    "trainer.batch_size": "parallel streams or windows per step",
    "trainer.sequence_length": "tokens of each per step",
    "trainer.gradient_clip": "largest gradient norm; null for none",
    "trainer.accumulate": "batches per update",
    "trainer.precision": "auto, fp32 or bf16",
    "trainer.device": "auto, cpu, cuda, mps …",
    "trainer.max_epochs": "limit; training ends at the first limit that is reached",
    "trainer.max_steps": "limit, in updates",
    "trainer.max_tokens": "limit, in training tokens",
    "trainer.max_minutes": "limit, in minutes",
    "trainer.eval_every": "updates between validations; null chooses",
    "trainer.patience": "validations without improvement before training stops; null never stops",
}
"""The most used keys with their help."""


@dataclass(frozen=True)
class CommandText:
    """The texts of a command's help page.

    Attributes:
        name: name of the command.
        about: description of the command, in one or two sentences.
        examples: command lines, each with its effect.
        groups: configuration groups that the command uses.
        cfg: help of `--cfg`.
        notes: further paragraphs as pairs of title and text, such as exit codes.
        flags: further options without a value, with their help.
        root: root file of the configuration.
    """

    name: str
    about: str
    examples: Sequence[tuple[str, str]]
    groups: Sequence[str]
    cfg: str = "print the whole configuration with your overrides and stop"
    notes: Sequence[tuple[str, str]] = ()
    flags: Mapping[str, str] = field(default_factory=dict)
    root: str = "train"


def help_page(text: CommandText, overrides: Sequence[str], config_dirs: Sequence[Path]) -> str:
    """Return the help page: groups with their choices, the most used keys with their values, examples.

    Args:
        text: texts of the command.
        overrides: overrides to apply to the values shown.
        config_dirs: folders with further choices.
    """
    composition = compose_config(overrides, config_dirs, text.root)
    groups = {name: choices for name, choices in find_groups(config_dirs).items() if choices}
    shown = [name for name in groups if name in text.groups or name not in GROUPS]
    parts = [
        f"usage: {text.name} [OVERRIDE ...] [--config-dir DIR] [--cfg] [--debug] [--help]",
        textwrap.fill(text.about, WIDTH),
        "Groups: GROUP=CHOICE selects a choice (* marks the current one)",
        "\n".join(_group_lines(name, groups[name], _in_force(composition, name)) for name in shown),
        "Keys: KEY=VALUE sets a value; the most used keys, with their current values",
        _key_lines(composition.config),
        *_node_lines(composition, shown),
        *(f"{title}\n{textwrap.indent(_wrapped(body), '  ')}" for title, body in text.notes),
        "Options\n"
        + "".join(f"  {flag:<17} {does}\n" for flag, does in text.flags.items())
        + _OPTIONS.format(cfg=text.cfg),
        "Examples\n" + "\n".join(f"  {line}\n      {meaning}" for line, meaning in text.examples),
    ]
    return "\n\n".join(parts)


_OPTIONS = """\
  --config-dir DIR  add your own groups: DIR/model/mine.yaml defines model=mine; may be repeated.
                    A run folder repeats that run (tl-train)
  --cfg             {cfg}
  --debug           show the traceback of an error (as HYDRA_FULL_ERROR=1 does)
  -h, --help        show this page, with the overrides of the command line applied"""


def _in_force(composition: Composition, group: str) -> list[str]:
    """Return the current choices of a group: one, or several callbacks or stages."""
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
    """Return a paragraph for each current choice with its keys that `KEYS` lacks."""
    parts = []
    for group in groups:
        node = OmegaConf.select(composition.config, group)
        if not isinstance(node, DictConfig):
            continue
        names = [name for name in map(str, node) if name not in INTERPRETED and f"{group}.{name}" not in KEYS]
        keys = [f"{group}.{name}" for name in names]
        if group in SIDE_BY_SIDE:
            keys = [f"{group}.{name}.{key}" for name in names for key in node[name] if key not in INTERPRETED]
        values = [f"{key}={_value(composition.config, key)}" for key in keys]
        if values:
            title = f"Further keys of {group}={composition.choices.get(group, '')}"
            parts.append(f"{title}\n{textwrap.indent(_filled(values), '  ')}")
    return parts


def _value(config: DictConfig, key: str) -> str | None:
    """Return the value of a key in the form of an override, or None if the key does not exist."""
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
