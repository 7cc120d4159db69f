"""`progress.json`: which stages of a run are done, so that a run that goes on repeats none of them."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from torch_linguist.data import TokenizedCorpus
from torch_linguist.data.corpora.corpus import digest
from torch_linguist.errors import LinguistError
from torch_linguist.runs.files import write_json
from torch_linguist.runs.safe_reading import read_small_text
from torch_linguist.trainer import STAGES, Callback

FILE = "progress.json"
BEFORE_FIT = STAGES[: STAGES.index("fit")]


class Finish(Protocol):
    """Called at the end of a stage."""

    def __call__(self, verdict: str, facts: Mapping[str, Any], done: bool = True) -> None:
        """Hands in what a stage came to.

        Args:
            verdict: in one line.
            facts: what `summary.json` says of it, and what a run that goes on needs of it.
            done: whether a run that goes on may leave the stage out.
        """


class Progress:
    """The stages of a run as they begin and end.

    Args:
        folder: of the run.
        observer: is told.
        stages: the part of the summary that each stage adds its facts to.
        resume: whether the run goes on; what `progress.json` holds then counts.
    """

    def __init__(self, folder: Path, observer: Callback, stages: dict[str, Any], resume: bool) -> None:
        self._path, self._observer, self._stages = folder / FILE, observer, stages
        self._content: dict[str, Any] = {"stages": {}, "corpus": None, "changes": []}
        if resume:
            self._read()

    def _read(self) -> None:
        if not self._path.is_file():
            # Of a version that kept no such file: with a checkpoint, the stages before it are done.
            self._content["stages"] = {stage: {} for stage in BEFORE_FIT}
            return
        try:
            content = json.loads(read_small_text(self._path))
            assert isinstance(content["stages"], dict)
        except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
            raise LinguistError(
                f"{self._path}: is damaged; remove it, and the stages before fit are taken as done"
            ) from (error)
        self._content |= content

    def begin(self, corpus: TokenizedCorpus, changes: Sequence[str]) -> None:
        """The run begins, or goes on, on this corpus.

        Args:
            corpus: tokenized.
            changes: what the configuration of a run that goes on has other than before, in words.

        Raises:
            LinguistError: the run was begun on another corpus.
        """
        facts = {
            "vocabulary": corpus.tokenizer.vocab_size,
            "tokenizer": digest("tokenizer", corpus.tokenizer.to_json())[:16],
            **{f"{split} tokens": len(stream) for split, stream in corpus.streams.items()},
        }
        before = self._content["corpus"]
        if isinstance(before, dict) and before != facts:
            differing = [
                f"{key}: {before.get(key)} then, {facts[key]} now" for key in facts if before.get(key) != facts[key]
            ]
            raise LinguistError(
                f"{self._path.parent}: the text or its tokenizer has changed since the run was begun "
                f"({'; '.join(differing)}); bring them back, or start a new run"
            )
        self._content["corpus"] = facts
        self._content["changes"] = [*self._content["changes"], *changes]
        self._write()

    def done(self, stage: str) -> dict[str, Any] | None:
        """The facts of a stage that an earlier part of this run has finished; None of one that is still to do."""
        facts = self._content["stages"].get(stage)
        return facts if isinstance(facts, dict) else None

    def take_over(self, stage: str) -> None:
        """Puts a stage that is done into the summary."""
        self._stages[stage] = self.done(stage)

    @contextmanager
    def stage(self, stage: str, about: str) -> Iterator[Finish]:
        """Announces a stage; the block hands its verdict to what it is given."""
        begin = time.perf_counter()
        self._observer.stage_started(stage, about)

        def finish(verdict: str, facts: Mapping[str, Any], done: bool = True) -> None:
            seconds = time.perf_counter() - begin
            self._stages[stage] = {"seconds": round(seconds, 3), **facts}
            if done:
                self._content["stages"][stage] = self._stages[stage]
                self._write()
            self._observer.stage_finished(stage, verdict, seconds)

        yield finish

    def _write(self) -> None:
        write_json(self._path, self._content)
