"""A stage of a run: its settings, its place, what it does, what it leaves and how a resumed run takes it up."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch_linguist.pipeline.run_context import RunContext


@dataclass(frozen=True)
class StageResult:
    """Result of a stage.

    Attributes:
        verdict: the result in one line, for the terminal.
        facts: plain values for `summary.json` and `progress.json`. A resumed run passes them to `Stage.restore`.
        notes: further lines for the user.
        done: whether a resumed run may skip the stage.
        error: reason why the run cannot continue; empty if it can.
    """

    verdict: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    done: bool = True
    error: str = ""


@dataclass(frozen=True)
class Stage(ABC):
    """Base class of stages.

    The fields of a subclass are its settings: the keys of its configuration node, whose key is the stage's name. To
    add a stage, write a subclass and a file `stage/NAME.yaml` that names it, then list NAME in `stages`.

    Attributes:
        name: name in `stages`, in the terminal, in `progress.json` and in `summary.json`.
        title: what the stage does, in a few words.
        requires: names of stages that must run first. `initialize` is added if it is missing; the absence of any
            other one is an error.
        artifacts: names in `summary.json` of the files that the stage leaves, with their paths in the run folder.
        tables: CSV files in the run folder that grow while the stage runs, the latest first. Sweeps read them to show
            progress.
        for_counted: whether the stage runs for a model that is fitted by counting.
        main_process_only: whether only the main process of a distributed run executes the stage.
        announced: whether the terminal shows the stage, and whether its result is recorded.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    artifacts: ClassVar[Mapping[str, str]] = {}
    tables: ClassVar[tuple[str, ...]] = ()
    for_counted: ClassVar[bool] = False
    main_process_only: ClassVar[bool] = False
    announced: ClassVar[bool] = True

    @abstractmethod
    def run(self, context: "RunContext") -> StageResult:
        """Run the stage. Results that later stages need go to `context.results`.

        Raises:
            Interrupted: a signal asked the run to stop; the stage counts as not done.
            LinguistError: the stage failed.
        """

    def is_needed(self, context: "RunContext") -> bool:
        """Return whether there is anything to do; False where the configuration gives what the stage would find."""
        return True

    def is_done(self, context: "RunContext", facts: Mapping[str, Any]) -> bool:
        """Return whether the facts that an earlier part of the run recorded make another run unnecessary."""
        return True

    def restore(self, context: "RunContext", facts: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Put the recorded facts of a stage that is done into `context.results`."""

    def runs_after_interrupt(self, context: "RunContext") -> bool:
        """Return whether the stage still runs once a signal has asked the run to stop."""
        return False

    def prepare(self, context: "RunContext") -> None:  # noqa: B027 - optional
        """Settle what the stage needs of earlier results; called before the stage is announced."""

    def about(self, context: "RunContext") -> str:
        """Return the line that the terminal shows while the stage runs."""
        return self.title

    def plot(self, folder: Path, facts: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Draw the figures of the stage from its tables in the run folder and its facts."""

    def conclude(self, context: "RunContext") -> None:  # noqa: B027 - optional
        """Finish what belongs to the stage but not to its time; called after `run` and after `restore`."""
