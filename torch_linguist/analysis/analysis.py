"""From runs to a folder with the page, its figures and its tables."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from torch_linguist.analysis.analysis_settings import PARTS, AnalysisSettings
from torch_linguist.analysis.analyzed_run import AnalyzedRun
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


def analyze(
    runs: Sequence[AnalyzedRun],
    output_dir: Path = Path("outputs"),
    name: str | None = None,
    settings: AnalysisSettings | None = None,
    report: Report = lambda line: None,
) -> Analysis:
    """Looks at one run, or at two side by side, and writes what there is to see into a new folder.

    Args:
        runs: one run or two, on the same split of the same corpus.
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
    if len(runs) not in (1, 2):
        raise ConfigError(f"{len(runs)} runs: an analysis takes one, or two side by side")
    settings = settings or AnalysisSettings()
    start = time.monotonic()
    sections = make_sections(runs, settings, report)
    labels = [run.label for run in runs]
    folder = create_run_folder(Path(output_dir), name, f"analyze-{Path(labels[0]).name}")
    try:
        page = _write(folder, runs, sections)
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


def make_sections(runs: Sequence[AnalyzedRun], settings: AnalysisSettings, report: Report) -> list[Section]:
    """The parts of the page, their figures not yet drawn."""
    makers: dict[str, Callable[[], Section]] = {
        "slices": lambda: slices(runs, settings.seed),
        "surprisal": lambda: surprisal(runs, settings),
        "sensitivity": lambda: sensitivity(runs, settings),
        "heatmaps": lambda: heatmaps(runs, settings),
        "embeddings": lambda: embeddings(runs, settings),
        "calibration": lambda: calibration(runs, settings),
    }
    if len(runs) == 2:
        makers["comparison"] = lambda: comparison(runs[0], runs[1], settings)
    start = time.monotonic()
    sections = [overview(runs)]
    for run in runs:
        score = run.evaluation.score
        report(f"{run.label}: {score.tokens:,} tokens of {run.split}, perplexity {score.perplexity:.2f}")
    for part in PARTS:
        if part in settings.parts and part in makers:
            sections.append(makers[part]())
            report(f"{part} ({time.monotonic() - start:.0f} s)")
    return sections


def _write(folder: Path, runs: Sequence[AnalyzedRun], sections: list[Section]) -> Path:
    labels = " and ".join(run.label for run in runs)
    first = runs[0]
    size = f"{len(first.stream):,} tokens in {first.stream.num_documents:,} documents"
    subtitle = f"On {first.split} of {first.corpus.name}: {size}"
    footer = "The same figures are in figures/, every table in tables/."
    return write_page(folder, f"What {labels} learned", subtitle, sections, footer)
