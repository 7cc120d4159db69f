"""From runs to a folder with the page, its figures and its tables."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from torch_linguist.analysis.analysis_settings import PARTS, AnalysisSettings
from torch_linguist.analysis.analyzed_run import Subject
from torch_linguist.analysis.attribution_section import heatmaps, surprisal
from torch_linguist.analysis.comparison_section import comparison
from torch_linguist.analysis.embedding_section import calibration, embeddings
from torch_linguist.analysis.sensitivity_section import sensitivity
from torch_linguist.analysis.slice_sections import overview, slices
from torch_linguist.errors import ConfigError, LinguistError
from torch_linguist.report.page import write_page
from torch_linguist.report.page_parts import Section
from torch_linguist.runs.folders import create_run_folder

Report = Callable[[str], None]


@dataclass(frozen=True)
class Analysis:
    """What an analysis found, and where it lies.

    Attributes:
        folder: with `index.html`, `figures/` and `tables/`.
        page: the page.
        tables: every table by name, as in `tables/`.
        seconds: taken.
    """

    folder: Path
    page: Path
    tables: dict[str, pd.DataFrame]
    seconds: float


def analyse(
    subjects: Sequence[Subject],
    output_dir: Path = Path("outputs"),
    name: str | None = None,
    settings: AnalysisSettings | None = None,
    report: Report = lambda line: None,
) -> Analysis:
    """Looks at one run, or at two side by side, and writes what there is to see into a new folder.

    Args:
        subjects: one run or two, on the same split of the same corpus.
        output_dir: where the folder is made.
        name: of the folder; None for `analyze-`, the run and the time.
        settings: which parts, and from how large samples.
        report: is told what happens, line by line.

    Returns:
        The tables, and where the page is.

    Raises:
        ConfigError: there are not one run or two.
        LinguistError: the split is empty, or the folder cannot be written; nothing is left behind then.
    """
    if len(subjects) not in (1, 2):
        raise ConfigError(f"{len(subjects)} runs: an analysis takes one, or two side by side")
    settings = settings or AnalysisSettings()
    start = time.monotonic()
    sections = make_sections(subjects, settings, report)
    labels = [subject.label for subject in subjects]
    folder = create_run_folder(Path(output_dir), name, f"analyze-{Path(labels[0]).name}")
    try:
        page = _write(folder, subjects, sections)
    except BaseException as error:
        # The folder is new and ours: without its page it would pass for a whole analysis.
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise LinguistError(
                f"{folder}: cannot be written ({error.strerror or error}); make room, or choose --output-dir DIR"
            ) from error
        raise
    tables = {table.name: table.frame for section in sections for table in section.tables}
    return Analysis(folder, page, tables, time.monotonic() - start)


def make_sections(subjects: Sequence[Subject], settings: AnalysisSettings, report: Report) -> list[Section]:
    """The parts of the page, their figures not yet drawn."""
    makers: dict[str, Callable[[], Section]] = {
        "slices": lambda: slices(subjects, settings.seed),
        "surprisal": lambda: surprisal(subjects, settings),
        "sensitivity": lambda: sensitivity(subjects, settings),
        "heatmaps": lambda: heatmaps(subjects, settings),
        "embeddings": lambda: embeddings(subjects, settings),
        "calibration": lambda: calibration(subjects, settings),
    }
    if len(subjects) == 2:
        makers["comparison"] = lambda: comparison(subjects[0], subjects[1], settings)
    start = time.monotonic()
    sections = [overview(subjects)]
    for subject in subjects:
        score = subject.evaluation.score
        report(f"{subject.label}: {score.tokens:,} tokens of {subject.split}, perplexity {score.perplexity:.2f}")
    for part in PARTS:
        if part in settings.parts and part in makers:
            sections.append(makers[part]())
            report(f"{part} ({time.monotonic() - start:.0f} s)")
    return sections


def _write(folder: Path, subjects: Sequence[Subject], sections: list[Section]) -> Path:
    labels = " and ".join(subject.label for subject in subjects)
    first = subjects[0]
    size = f"{len(first.stream):,} tokens in {first.stream.num_documents:,} documents"
    subtitle = f"On {first.split} of {first.corpus.name}: {size}"
    footer = "The same figures are in figures/, every table in tables/."
    return write_page(folder, f"What {labels} learned", subtitle, sections, footer)
