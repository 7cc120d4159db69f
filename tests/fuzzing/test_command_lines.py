"""Whatever is typed, and whatever befalls run folders, disks or open files: a command ends in one line of ours."""

import os
import random
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from child import Ending, run_command
from conftest import made_text
from damage import damaged
from omegaconf import OmegaConf

import torch_linguist.analysis  # noqa: F401 - forks have it then
import torch_linguist.explore  # noqa: F401
import torch_linguist.pipeline  # noqa: F401
import torch_linguist.sweep  # noqa: F401
from torch_linguist.config.composition import compose_config
from torch_linguist.report import plots

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork"),
    pytest.mark.timeout(0),
]

Rounds = Callable[[int], Iterator[tuple[int, random.Random]]]

TINY = (
    "data=text data.path=texts stages=[fit] trainer.max_steps=2 trainer.max_minutes=0.05 optim.lr=1e-3 "
    "optim.weight_decay=0 model.embedding_dim=8 model.num_layers=1 trainer.batch_size=2 trainer.sequence_length=8 "
    "score.baseline_order=0 trainer.sample_every=0 trainer.compile=false tokenizer.min_frequency=1"
)
BASE = TINY.split()
CHOICES = "model=lstm model=transformer model=ngram tokenizer=bpe optim=sgd schedule=plateau data=sotu data=text"
VALUES = [
    "-1", "0", "1", "2", "0.5", "1.5", "1e-30", "1e30", "inf", "-inf", "nan", "1000000000000000000", "2147483648",
    "18446744073709551616", "9" * 400, "65537", "true", "false", "null", "auto", "", "[]", "[1]", "[a,b]", "{}",
    "{a:1}", "x", "~", "~/x", "a b", "é", "\x1b[2Jx", "${oc.env:HOME}", "${x}", "???", "x" * 5000, "range(1,3)",
    "1,2", "'", '"',
    "[", "cpu", "cuda:7", "meta", "/dev/null", "/", "texts/0.txt", "nowhere", "rot13", "latin-1", "word", "2024_01_05",
    "1.10", "a=b", "a:b", "\\", "..", "@x", "=", "\u202ex", "\ud800", "train", "test",
]  # fmt: skip
RUNS = [
    "a",
    "outputs/a",
    "outputs/ngram",
    "nowhere",
    "texts",
    "outputs",
    "",
    ".",
    "/dev/null",
    "texts/0.txt",
    "\x1b[2J",
]
LIGHT = {"analyze": ["--probes", "2", "--passages", "1", "--examples", "0", "--predictions", "9", "--parts", "slices"]}
COMMANDS = ["train"] * 8 + ["generate", "eval", "score"] * 4 + ["export", "export", "grid", "explore", "analyze"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with texts and two runs, made by commands as a user makes them; nothing draws meanwhile."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "texts").mkdir()
    for number in range(8):
        (folder / "texts" / f"{number}.txt").write_text(made_text(10, number))
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # The first one imports a compiler; forks have it then.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        for name in [name for name in vars(plots) if name.startswith("plot_")]:
            patch.setattr(plots, name, lambda *arguments: None)
        make_runs(folder)
        yield folder


def make_runs(folder: Path) -> None:
    """Make the runs `a` and `ngram`."""
    for line in (["name=a"], ["name=ngram", "model=ngram", "~model.embedding_dim", "~model.num_layers"]):
        words = [word for word in BASE if not (line[0] == "name=ngram" and word.startswith("model."))]
        ending = run_command(["train", *words, *[word for word in line if not word.startswith("~")]], folder)
        assert ending.code == 0, ending.errors


@pytest.fixture(scope="module")
def keys() -> list[str]:
    """Every key of the configuration, over all choices."""
    found: set[str] = set()
    for choice in CHOICES.split():
        pending: list[tuple[str, Any]] = [("", OmegaConf.to_container(compose_config([choice]).config))]
        while pending:
            prefix, node = pending.pop()
            found |= {f"{prefix}{name}" for name in node}
            pending += [(f"{prefix}{name}.", child) for name, child in node.items() if isinstance(child, dict)]
    # Compilation takes minutes, and whole stages have tests of their own.
    return sorted(found - {"trainer.compile", "stages"})


def random_line(source: random.Random, keys: Sequence[str], options: dict[str, list[str]]) -> list[str]:
    """A command line, mostly valid but for one to three places."""
    command = source.choice(COMMANDS)
    if command in ("train", "grid", "explore"):
        base = BASE if command != "explore" else ["data=text", "data.path=texts", "explore.word_cloud=false"]
        line = [command, *base, *(["--cfg"] if command == "grid" or source.random() < 0.1 else [])]
        for _ in range(source.randint(1, 3)):
            value, key = source.choice(VALUES), source.choice(keys)
            line.append(source.choice([f"{key}={value}"] * 9 + [f"~{key}", f"+{key}={value}", value, f"--{key}"]))
        return line
    line = [command, *LIGHT.get(command, [])]
    line += [source.choice(RUNS)] if source.random() < 0.3 else ["a"]
    for _ in range(source.randint(0, 3)):
        option = source.choice(options[command])
        line.append(option)
        line += [source.choice([*VALUES, "5", "0.5", "texts/0.txt", "a"])] if source.random() < 0.8 else []
    return line


def options_of(command: str, folder: Path) -> list[str]:
    """The options that the help page of a command names."""
    page = run_command([command, "--help"], folder).output
    return sorted(
        set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", page)) - {"--help", "-h", "--debug", "-i", "--interactive"}
    )


class Faults:
    """Faults of all rounds; each is printed when it is found."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def check(self, ending: Ending, line: Sequence[str], number: int) -> None:
        if ending.fault is not None:
            command = " ".join(map(repr, line))[:600]
            self.found.append(f"round {number}: tl-{command}\n{ending.fault}: {ending.errors[-1500:]}")
            sys.stdout.write(self.found[-1] + "\n")
            sys.stdout.flush()


def test_command_lines_end_well(place: Path, keys: list[str], rounds: Rounds) -> None:
    options, faults = {command: options_of(command, place) for command in sorted(set(COMMANDS))}, Faults()
    for number, source in rounds(6):
        line = random_line(source, keys, options)
        if not any("\0" in word for word in line):
            faults.check(run_command(line, place), line, number)
        for left in (place / "outputs").glob("*"):
            if left.name not in ("a", "ngram"):
                shutil.rmtree(left, ignore_errors=True)
    assert not faults.found, "\n".join(faults.found)


def changed_folder(folder: Path, source: random.Random) -> None:
    """Damage, delete, swap or replace one to three files of a folder."""
    for _ in range(source.randint(1, 3)):
        path = source.choice(sorted(path for path in folder.rglob("*") if path.is_file()) or [folder / "none"])
        kind = source.choice(["damage"] * 6 + ["delete", "empty", "folder", "link", "pipe", "other"])
        if kind == "damage":
            path.write_bytes(damaged(path.read_bytes(), source))
            continue
        path.unlink(missing_ok=True)
        if kind == "empty":
            path.touch()
        elif kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(source.choice(["/etc/hostname", "nowhere", path.name]))
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "other":
            path.write_bytes(source.randbytes(100))


AFTER_TRAINING = [
    ["eval", "b"],
    ["generate", "b", "-p", "the", "--max-tokens", "5"],
    ["score", "b", "texts/0.txt"],
    ["train", "resume=outputs/b", "trainer.max_steps=4"],
    ["export", "b", "--jit", "--check-tokens", "10"],
]


def test_damaged_run_folders_end_in_one_line(place: Path, rounds: Rounds) -> None:
    faults = Faults()
    for number, source in rounds(4):
        shutil.rmtree(place / "outputs/b", ignore_errors=True)
        shutil.copytree(place / "outputs/a", place / "outputs/b")
        changed_folder(place / "outputs/b", source)
        line = source.choice(AFTER_TRAINING)
        faults.check(run_command(line, place), line, number)
    shutil.rmtree(place / "outputs/b", ignore_errors=True)
    assert not faults.found, "\n".join(faults.found)


def test_full_disks_and_few_handles_end_in_one_line(place: Path, rounds: Rounds) -> None:
    """No file may grow beyond a random size, or few files may be open: whatever fails names a file or the shortage."""
    lines, faults = [["train", *BASE, "name=c"], *AFTER_TRAINING], Faults()
    for number, source in rounds(4):
        shutil.rmtree(place / "outputs/b", ignore_errors=True)
        shutil.copytree(place / "outputs/a", place / "outputs/b")
        line = source.choice(lines)
        limit = source.choice([resource.RLIMIT_FSIZE] * 3 + [resource.RLIMIT_NOFILE])
        sizes = [0, 1, 100, 1000, 5000, 20_000, 50_000]
        value = source.choice(sizes) if limit == resource.RLIMIT_FSIZE else source.randint(8, 40)
        ending = run_command(line, place, limits=[(limit, value)])
        shutil.rmtree(place / "outputs/c", ignore_errors=True)
        faults.check(ending, line, number)
    shutil.rmtree(place / "outputs/b", ignore_errors=True)
    assert not faults.found, "\n".join(faults.found)
