"""README.md and docs/: their commands run, their links lead somewhere, their tables agree with the package."""

import importlib
import importlib.util
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import conftest
import pytest
import torch

import torch_linguist
from torch_linguist.config.composition import compose_config

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

SMALL = ["experiment=debug", "stages=[check,fit,export]", "optim.lr=0.01", "optim.weight_decay=0"]
SMALL_SOTU = ["data.max_documents=16", "tokenizer.max_size=300"]
SMALL_MODEL = ["model.embedding_dim=32", "model.hidden_size=32"]
SMALL_ANALYSIS = ["--probes", "8", "--passages", "1", "--examples", "1", "--predictions", "300"]
ONLY_COMPOSED = {
    "data=wikitext2": "needs the Hugging Face hub",
    "trainer.max_steps=50000": "takes hours",
    "torchrun": "tests/integration/resuming/test_processes.py runs several processes",
    "tl-grid": "tests/unit/sweep runs sweeps",
}
NOT_RUN = {
    "pip": "tests/integration/test_wheel.py installs the package",
    "tensorboard": "a server that does not end",
    "optuna-dashboard": "a server of another package",
}

pytestmark = pytest.mark.xdist_group("readme")


def fenced_blocks(text: str, language: str = "") -> list[str]:
    """The fenced code blocks of a Markdown text in one language, "" for those without."""
    return [body for tag, body in re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.M | re.S) if tag == language]


def command_lines(text: str) -> list[list[str]]:
    """The commands in the blocks without a language, as arguments; comments are left out."""
    lines = [line for block in fenced_blocks(text) if "#SBATCH" not in block for line in block.splitlines()]
    return [arguments for line in lines if (arguments := shlex.split(line, comments=True))]


def first_column(heading: str, text: str = README) -> list[str]:
    """The names in backquotes in the first column of the table under a heading."""
    section = text.split(f"# {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, re.M)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def run(arguments: list[str]) -> int:
    """Call a command of the package in this process."""
    module = importlib.import_module("torch_linguist.cli." + arguments[0].removeprefix("tl-"))
    return int(module.main(arguments[1:]))


def load_script(name: str) -> ModuleType:
    """A file of `scripts/documentation/` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / "documentation" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reason_not_to_run(line: list[str]) -> str | None:
    return next((reason for word, reason in ONLY_COMPOSED.items() if word in line), None)


def small(line: list[str]) -> list[str]:
    """The command with the sizes of a test."""
    given = {word.partition("=")[0] for word in line}
    if line[0] == "tl-train":
        extra = [word for word in SMALL if word.partition("=")[0] not in given]
        extra += [] if "data" in given else SMALL_SOTU
        extra += [] if "model=ngram" in line else SMALL_MODEL
        return [*line, *extra]
    if line[0] == "tl-explore":
        return [*line, *SMALL_SOTU]
    if line[0] == "tl-analyze":
        return [*line, *SMALL_ANALYSIS]
    return [*line, "--check-tokens", "200"] if line[0] == "tl-export" else line


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `my_texts/`, in which the commands run one after another."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "my_texts").mkdir()
    for index, name in enumerate(("story", "b", "c", "d", "e", "f")):
        (folder / "my_texts" / f"{name}.txt").write_text(conftest.made_text(60, index), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def test_the_two_lines_of_the_first_screen() -> None:
    assert fenced_blocks(README)[0] == 'pip install -e . && tl-train\npip install -e ".[dev]" && pytest\n'


@pytest.mark.timeout(900)
def test_the_commands_of_the_readme_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In their order, since later ones use the runs of earlier ones."""
    left_out, failed = 0, {}
    for line in command_lines(README):
        if line[0] in NOT_RUN or reason_not_to_run(line):
            left_out += 1  # For the reason given there; its configuration is composed by another test.
        elif run(small(line)) != 0:
            failed[shlex.join(line)] = capsys.readouterr().err[-500:]
    assert not failed
    assert left_out < len(command_lines(README)) / 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_training_and_sweep_of_the_pages_can_be_composed(
    page: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    composed: set[tuple[str, ...]] = set()
    text = page.read_text(encoding="utf-8").replace("range(1,21)", "range(1,3)").replace("trials=30", "trials=2")
    for line in command_lines(text):
        command = line[line.index("tl-train") :] if "tl-train" in line and line[0] != "srun" else line
        needs_a_run = "--config-dir" in command or "resume=true" in command
        if command[0] in ("tl-train", "tl-grid") and not needs_a_run and tuple(command) not in composed:
            composed.add(tuple(command))
            assert run([*command, "--cfg"]) == 0, shlex.join(command) + capsys.readouterr().err


def test_the_python_of_the_readme_is_that_of_the_package() -> None:
    (block,) = fenced_blocks(README, "python")
    assert torch_linguist.__doc__ is not None
    example = [line[4:] for line in torch_linguist.__doc__.splitlines() if line.startswith("    ")]
    # tests/unit/test_public_api.py runs it.
    assert list(filter(None, block.splitlines())) == list(filter(None, example))


def test_the_python_of_the_pages_runs(workplace: Path) -> None:
    if not (workplace / "outputs" / "gru").is_dir():
        pytest.skip("needs the run of the README's commands")
    shutil.copy(workplace / "outputs" / "gru" / "model.jit", workplace / "model.jit")
    page = (ROOT / "docs" / "after-training.md").read_text(encoding="utf-8")
    *loading, exported = fenced_blocks(page, "python")
    assert len(loading) == 2
    for block in loading:
        exec(compile(block.replace("outputs/lstm", "outputs/gru"), "after-training.md", "exec"), {})
    names: dict[str, object] = {}
    exec(compile(exported, "after-training.md", "exec"), names)
    logits = names["logits"]
    assert isinstance(logits, torch.Tensor)
    assert logits.shape[:2] == (1, 1)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def test_tables_agree_with_the_package(workplace: Path) -> None:
    assert set(first_column("Commands")) == set(PROJECT["project"]["scripts"])
    assert first_column("The six steps of a run") == list(compose_config([]).config.stages)
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    rooms = {name.strip().removeprefix("torch_linguist.") for layer in layers for name in re.split(r"[|:]", layer)}
    architecture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = [name for name in first_column("Architecture", architecture) if "(" not in name]
    assert set(named) == rooms
    assert all((ROOT / "torch_linguist" / name).exists() or name == "errors" for name in named)


def test_the_groups_are_those_of_configs() -> None:
    folders = {path.name for path in (ROOT / "configs").iterdir() if path.is_dir() and path.name != "__pycache__"}
    section = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8").split("\n\n```")[0]
    assert set(re.findall(r"\*\*(\w+)\*\*", section)) == folders
    for group in ("data", "tokenizer", "model"):
        choices = {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")}
        line = section.split(f"**{group}**")[1].split("- **")[0]
        assert choices <= set(re.findall(r"`(\w+)`", line))


def test_the_results_are_those_of_the_record() -> None:
    update_readme = load_script("update_readme")
    assert update_readme.updated(README, update_readme.stored_record()) == README


def test_one_version_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.M) == [torch_linguist.__version__]
    assert torch_linguist.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_recorded_terminal_shows_what_stayed_on_the_screen(tmp_path: Path) -> None:
    script = "print('step 1\\rstep 2'); print('above'); print('\\x1b[1A\\x1b[2K\\x1b[32mfinal\\x1b[0m')"
    record_terminal = load_script("record_terminal")
    assert record_terminal.main([str(tmp_path / "a.svg"), "--title", "t", "--", sys.executable, "-c", script]) == 0
    picture = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "step&#160;2" in picture
    assert "final" in picture
    assert "step&#160;1" not in picture
    assert "above" not in picture
    assert set(re.findall(r"https?://[^\s\"'<]+", picture)) <= {
        "http://www.w3.org/2000/svg",
        "https://www.textualize.io",
    }
