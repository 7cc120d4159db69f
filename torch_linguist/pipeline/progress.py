"""`progress.json`: the stages of a run that are done, which a resumed run skips, and the one that is running."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch_linguist.data import TokenizedCorpus
from torch_linguist.data.identity import check_unchanged, corpus_facts
from torch_linguist.errors import LinguistError
from torch_linguist.pipeline.run_context import RunContext
from torch_linguist.pipeline.stages.order import ORDER
from torch_linguist.pipeline.stages.stage import Stage, StageResult
from torch_linguist.runs.files import write_json
from torch_linguist.runs.safe_reading import read_small_text
from torch_linguist.trainer import Callback

FILE = "progress.json"


class Progress:
    """Announces the stages of a run and records their results.

    Args:
        folder: run folder.
        callbacks: called when a stage starts and finishes.
        stages: entry `stages` of the summary, filled with the facts of each stage.
        resume: whether the run is resumed, so that the content of `progress.json` counts.
    """

    def __init__(self, folder: Path, callbacks: Callback, stages: dict[str, Any], resume: bool) -> None:
        self._path, self._callbacks, self._stages = folder / FILE, callbacks, stages
        self._content: dict[str, Any] = {"stages": {}, "corpus": None, "changes": []}
        if resume:
            self._read()

    def _read(self) -> None:
        if not self._path.is_file():
            # Early versions wrote no such file: if there is a checkpoint, the stages before `fit` are done.
            self._content["stages"] = {stage: {} for stage in ORDER[: ORDER.index("fit")]}
            return
        try:
            content = json.loads(read_small_text(self._path))
            assert isinstance(content["stages"], dict)
        except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
            raise LinguistError(
                f"{self._path}: is damaged; remove it, and the stages before fit count as done"
            ) from error
        self._content |= content

    def begin(self, corpus: TokenizedCorpus, changes: Sequence[str]) -> None:
        """Begin or resume the run on a corpus.

        Args:
            corpus: tokenized corpus.
            changes: differences between the configurations of the resumed run before and now.

        Raises:
            LinguistError: the run began on another corpus.
        """
        check_unchanged(self._path.parent, self._content["corpus"], corpus, "restore the files, or start a new run")
        self._content["corpus"] = corpus_facts(corpus)
        self._content["changes"] = [*self._content["changes"], *changes]
        self._write()

    def done(self, stage: str) -> dict[str, Any] | None:
        """Return the facts of a stage that an earlier part of the run finished; None if it did not."""
        facts = self._content["stages"].get(stage)
        return facts if isinstance(facts, dict) else None

    def take_over(self, stage: str) -> None:
        """Copy the facts of a finished stage to the summary."""
        self._stages[stage] = self.done(stage)

    def run(self, stage: Stage, context: RunContext) -> StageResult:
        """Run a stage, draw its figures and record its result."""
        begin = time.perf_counter()
        self._content["running"] = {"stage": stage.name, "tables": list(stage.tables)}
        self._write()
        self._callbacks.stage_started(stage.name, stage.about(context))
        result = stage.run(context)
        stage.plot(context.folder, result.facts)
        seconds = time.perf_counter() - begin
        self._stages[stage.name] = {"seconds": round(seconds, 3), **result.facts}
        if result.done:
            self._content["stages"][stage.name] = self._stages[stage.name]
            self._write()
        self._callbacks.stage_finished(stage.name, result.verdict, seconds)
        return result

    def _write(self) -> None:
        write_json(self._path, self._content)
