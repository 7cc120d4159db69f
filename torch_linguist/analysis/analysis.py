"""Analysis of one run or two: a folder with the page, its figures and its tables."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from torch_linguist.analysis.analysis_settings import PARTS, AnalysisSettings
from torch_linguist.analysis.analyzed_run import AnalyzedRun
from torch_linguist.analysis.attribution_section import heatmaps
from torch_linguist.analysis.calibration_section import calibration
from torch_linguist.analysis.comparison_section import comparison
from torch_linguist.analysis.embedding_section import embeddings
from torch_linguist.analysis.sensitivity_section import sensitivity
from torch_linguist.analysis.slice_sections import overview, slices
from torch_linguist.analysis.surprisal_section import surprisal
from torch_linguist.errors import ConfigError
from torch_linguist.report.page import new_page_folder, tables_by_file_name, write_page
from torch_linguist.report.page_parts import Page, Section

Report = Callable[[str], None]


@dataclass(frozen=True)
class Analysis:
    """Results of an analysis.

    Attributes:
        folder: folder with `index.html`, `figures/` and `tables/`.
        page: path of the page.
        tables: all tables, by the name of their file in `tables/`.
        findings: main results, one sentence each.
        commands: command lines to run next.
        seconds: duration.

    Example:
        >>> run = AnalyzedRun("bigram", model, corpus.tokenizer, corpus, split="test")
        >>> found = analyze([run], name="slices", settings=AnalysisSettings(parts=("slices",)))
        >>> len(found.findings) > 0
        True
    """

    folder: Path
    page: Path
    tables: dict[str, pd.DataFrame]
    findings: list[str]
    commands: list[str]
    seconds: float


def analyze(
    runs: Sequence[AnalyzedRun],
    output_dir: Path = Path("outputs"),
    name: str | None = None,
    settings: AnalysisSettings | None = None,
    report: Report = lambda line: None,
) -> Analysis:
    """Analyze one run, or two side by side, and write the results to a new folder.

    Args:
        runs: one run or two, on the same split of the same corpus.
        output_dir: parent of the new folder.
        name: name of the folder; None for `analyze-`, the run and the time.
        settings: parts and sample sizes; None for the defaults.
        report: called with one line per finished step.

    Returns:
        The tables and the path of the page.

    Raises:
        ConfigError: there are not one or two runs.
        LinguistError: the split is empty, or the folder cannot be written. Nothing is left behind.

    Example:
        >>> run = AnalyzedRun("bigram", model, corpus.tokenizer, corpus, split="test")
        >>> analyze([run], name="bigram", settings=AnalysisSettings(parts=("slices",))).page.is_file()
        True
    """
    if len(runs) not in (1, 2):
        raise ConfigError(f"{len(runs)} runs: an analysis takes one, or two side by side")
    settings = settings or AnalysisSettings()
    start = time.monotonic()
    sections = make_sections(runs, settings, report)
    with new_page_folder(Path(output_dir), name, f"analyze-{Path(runs[0].label).name}") as folder:
        content = _page(runs, sections)
        page = write_page(folder, content)
    findings = [finding for section in sections for finding in section.findings]
    commands = [command for command, _ in content.commands]
    return Analysis(folder, page, tables_by_file_name(sections), findings, commands, time.monotonic() - start)


def make_sections(runs: Sequence[AnalyzedRun], settings: AnalysisSettings, report: Report) -> list[Section]:
    """Return the parts of the page, with figures not drawn yet."""
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


def _page(runs: Sequence[AnalyzedRun], sections: list[Section]) -> Page:
    first = runs[0]
    size = f"{len(first.stream):,} tokens in {first.stream.num_documents:,} documents"
    folders = [str(run.folder) for run in runs if run.folder is not None]
    commands = []
    if folders:
        other = "valid" if first.split == "test" else "test"
        commands = [
            (shlex.join(["tl-generate", folders[0]]), "Text from the model:"),
            (
                shlex.join(["tl-analyze", *folders, "--text", "The king of the"]),
                "The same page for a text of your own:",
            ),
            (shlex.join(["tl-eval", *folders, "--split", other]), f"Scores on {other}:"),
        ]
    return Page(
        f"What {' and '.join(run.label for run in runs)} learned",
        f"On {first.split} of {first.corpus.name}: {size}",
        sections,
        key={run.label: run.description for run in runs},
        commands=commands,
    )
