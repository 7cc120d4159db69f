"""From a corpus to a folder with the page, its figures and its tables."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from torch_linguist.data import Corpus, TokenizerTrainer
from torch_linguist.errors import LinguistError
from torch_linguist.explore import texts, vocabulary
from torch_linguist.explore.findings import findings
from torch_linguist.explore.measure import Measurements, measure
from torch_linguist.explore.settings import ExploreSettings
from torch_linguist.report.page import PAGE, tables_by_file_name, write_page
from torch_linguist.report.page_parts import Page, Section
from torch_linguist.runs.files import write_text
from torch_linguist.runs.folders import create_run_folder

Report = Callable[[str], None]


@dataclass(frozen=True)
class Exploration:
    """What an exploration found, and where it lies.

    Attributes:
        folder: with `index.html`, `figures/` and `tables/`, in it `splits.csv`: a row for each document.
        page: the page.
        tables: every table by name, as in `tables/`.
        is_whole: whether all of the corpus was explored, not a sample.
        seconds: taken.
    """

    folder: Path
    page: Path
    tables: dict[str, pd.DataFrame]
    is_whole: bool
    seconds: float


def explore(
    corpus: Corpus,
    tokenizer_trainer: TokenizerTrainer,
    output_dir: Path = Path("outputs"),
    name: str | None = None,
    settings: ExploreSettings | None = None,
    seed: int = 1,
    report: Report = lambda line: None,
    config_text: str | None = None,
    commands: Sequence[tuple[str, str]] = (),
) -> Exploration:
    """Looks at a corpus and writes what there is to see into a new folder.

    Args:
        corpus: the text.
        tokenizer_trainer: how it is tokenized.
        output_dir: where the folder is made.
        name: of the folder; None for `explore-`, the corpus and the time.
        settings: how much is read and shown.
        seed: of the samples and permutations.
        report: called with each progress message, one line at a time.
        config_text: configuration to keep in the folder as `explore.yaml`; None for none.
        commands: commands to suggest at the end of the page, as (command, purpose).

    Returns:
        The tables, and where the page is.

    Raises:
        LinguistError: the corpus cannot be read, or the folder cannot be written; nothing is left behind then.
    """
    settings = settings or ExploreSettings()
    start = time.monotonic()
    measured = measure(corpus, tokenizer_trainer, settings, seed, report)
    sections = make_sections(measured, settings, seed)
    folder = create_run_folder(Path(output_dir), name, f"explore-{corpus.name}")
    try:
        tables = _write(folder, measured, sections, report, config_text, commands)
    except BaseException as error:
        # The folder is new and ours: without its page it would pass for a whole exploration.
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise LinguistError(
                f"{folder}: cannot be written ({error.strerror or error}); make room, or choose output_dir=FOLDER"
            ) from error
        raise
    return Exploration(folder, folder / PAGE, tables, measured.is_whole, time.monotonic() - start)


def make_sections(measured: Measurements, settings: ExploreSettings, seed: int) -> list[Section]:
    """The parts of the page, their figures not yet drawn."""
    sections = [
        texts.overview(measured),
        texts.samples(measured, settings.samples, seed),
        texts.lengths(measured),
        vocabulary.agreement(measured, seed),
        texts.duplicates(measured),
        texts.metadata(measured),
        vocabulary.frequencies(measured, settings, seed),
        vocabulary.vocabulary(measured, settings),
        vocabulary.words(measured),
    ]
    found = findings(measured)
    for section in sections:
        if section is not None:
            section.findings.extend(found.get(section.name, []))
    return [section for section in sections if section is not None]


def _write(
    folder: Path,
    measured: Measurements,
    sections: list[Section],
    report: Report,
    config_text: str | None,
    commands: Sequence[tuple[str, str]],
) -> dict[str, pd.DataFrame]:
    if config_text is not None:
        write_text(folder / "explore.yaml", config_text)
    subtitle = f"{len(measured.documents):,} documents, {int(measured.documents['tokens'].sum()):,} tokens"
    if not measured.is_whole:
        subtitle += ", a sample of the corpus"
    page = Page(f"The corpus {measured.name}", subtitle, sections, commands=commands)
    write_page(folder, page)
    tables = tables_by_file_name(sections)
    report(f"drawn: {sum(len(section.figures) for section in sections)} figures, {len(tables)} tables")
    return tables
