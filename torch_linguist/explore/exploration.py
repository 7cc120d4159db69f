"""Exploration of a corpus: a folder with the page, its figures and its tables."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from torch_linguist.data import Corpus, TokenizerTrainer
from torch_linguist.explore import texts, vocabulary
from torch_linguist.explore.findings import findings
from torch_linguist.explore.measure import Measurements, measure
from torch_linguist.explore.settings import ExploreSettings
from torch_linguist.report.page import new_page_folder, tables_by_file_name, write_page
from torch_linguist.report.page_parts import Page, Section
from torch_linguist.runs.files import write_text

Report = Callable[[str], None]


@dataclass(frozen=True)
class Exploration:
    """Results of an exploration.

    Attributes:
        folder: folder with `index.html`, `figures/` and `tables/`; `tables/splits.csv` has a row per document.
        page: path of the page.
        tables: all tables, by the name of their file in `tables/`.
        is_whole: whether the whole corpus was explored, not a sample.
        seconds: duration.

    Example:
        >>> explore(texts, WordTokenizerTrainer(), name="whole").is_whole
        True
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
    """Explore a corpus and write the results to a new folder.

    Args:
        corpus: source of the documents.
        tokenizer_trainer: builds the tokenizer.
        output_dir: parent of the new folder.
        name: name of the folder; None for `explore-`, the corpus and the time.
        settings: how much to read and show; None for the defaults.
        seed: random seed of samples and permutations.
        report: called with each progress message, one line at a time.
        config_text: configuration to keep in the folder as `explore.yaml`; None for none.
        commands: commands to suggest at the end of the page, as (command, purpose).

    Returns:
        The tables and the path of the page.

    Raises:
        LinguistError: the corpus cannot be read, or the folder cannot be written. Nothing is left behind.

    Example:
        >>> found = explore(texts, WordTokenizerTrainer(), name="look")
        >>> found.page.is_file(), "overview" in found.tables
        (True, True)
    """
    settings = settings or ExploreSettings()
    start = time.monotonic()
    measured = measure(corpus, tokenizer_trainer, settings, seed, report)
    sections = make_sections(measured, settings, seed)
    subtitle = f"{len(measured.documents):,} documents, {int(measured.documents['tokens'].sum()):,} tokens"
    if not measured.is_whole:
        subtitle += ", a sample of the corpus"
    with new_page_folder(Path(output_dir), name, f"explore-{corpus.name}") as folder:
        if config_text is not None:
            write_text(folder / "explore.yaml", config_text)
        page = write_page(folder, Page(f"The corpus {measured.name}", subtitle, sections, commands=commands))
    tables = tables_by_file_name(sections)
    report(f"drawn: {sum(len(section.figures) for section in sections)} figures, {len(tables)} tables")
    return Exploration(folder, page, tables, measured.is_whole, time.monotonic() - start)


def make_sections(measured: Measurements, settings: ExploreSettings, seed: int) -> list[Section]:
    """Return the parts of the page, with figures not drawn yet."""
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
