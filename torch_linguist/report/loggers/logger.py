"""Base classes of loggers.

A logger must never end a training: whatever its library raises is reported once, and the logger then stays silent.
"""

import importlib
import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel
from torch_linguist.runs.files import write_json
from torch_linguist.runs.safe_reading import read_json
from torch_linguist.trainer.callback import Callback, Fact

LOG = logging.getLogger("torch_linguist.report")

FILE = "loggers.json"
"""File of the run folder that holds the tracker's name of the run, by logger."""

PLOTS = ("overfit", "lr_finder", "grid", "curves")
"""Plots of the run folder that loggers show."""


@dataclass(frozen=True)
class LoggedRun:
    """What a logger needs to know of a run before its first event.

    Attributes:
        folder: run folder.
        resumed_at: update that a resumed run continues from; None for a new training.
        parameters: values of the configuration by key.
    """

    folder: Path
    resumed_at: int | None = None
    parameters: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.folder.resolve().name

    @property
    def plots(self) -> list[Path]:
        """Plots of the run, whether they exist or not."""
        return [self.folder / f"{name}.png" for name in PLOTS]


class Logger(Callback):
    """A callback that learns of the run before the training starts."""

    def start(self, run: LoggedRun) -> None:
        """The training is about to start or to continue."""


class Tracker(Logger):
    """Base class of loggers for experiment trackers.

    Parameters, scalars, samples, plots and exported files are sent. A resumed run continues in the same tracked run. A
    subclass wraps one library; what it raises ends the logging and not the run.
    """

    library: ClassVar[str]
    """Module of the library."""

    extra: ClassVar[str]
    """Extra of the package that installs the library."""

    def __init__(self) -> None:
        try:
            self._module = importlib.import_module(self.library)
        except ImportError as error:
            raise ConfigError(
                f'logger={self.extra}: needs the library {self.library}; pip install "torch-linguist[{self.extra}]"'
            ) from error
        self._active = False

    @property
    def module(self) -> ModuleType:
        """The library."""
        return self._module

    @abstractmethod
    def open(self, run: LoggedRun, identity: str | None) -> str:
        """Begin a tracked run, or continue the one with an identity.

        Args:
            run: the run.
            identity: what this method returned for the run before it was stopped; None for a new run.

        Returns:
            What identifies the tracked run.
        """

    @abstractmethod
    def log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Send numbers."""

    @abstractmethod
    def log_text(self, name: str, text: str, step: int) -> None:
        """Send a text in Markdown."""

    @abstractmethod
    def log_image(self, name: str, path: Path) -> None:
        """Send a PNG file."""

    @abstractmethod
    def log_file(self, name: str, path: Path) -> None:
        """Send a file as an artifact."""

    @abstractmethod
    def end(self) -> None:
        """End the tracked run and wait until everything is sent."""

    def start(self, run: LoggedRun) -> None:
        self._active = True
        self._attempt(self._open, run)

    def _open(self, run: LoggedRun) -> None:
        path = run.folder / FILE
        known = read_json(path) if path.is_file() else {}
        identity = known.get(self.extra) if run.resumed_at is not None else None
        opened = self.open(run, identity if isinstance(identity, str) else None)
        write_json(path, {**known, self.extra: opened})

    def logged(self, scalars: Mapping[str, float], step: int) -> None:
        self._attempt(self.log_scalars, scalars, step)

    def sampled(self, samples: Sequence[tuple[str, str]], step: int) -> None:
        self._attempt(self.log_text, "samples", samples_text(samples), step)

    def finished(
        self,
        model: LanguageModel,
        tokens: Sequence[str],
        hyperparameters: Mapping[str, Fact],
        metrics: Mapping[str, float],
        step: int,
    ) -> None:
        self._attempt(self.log_scalars, metrics, step)

    def run_ended(self, folder: Path, artifacts: Mapping[str, str]) -> None:
        for name in PLOTS:
            path = folder / f"{name}.png"
            if path.is_file():
                self._attempt(self.log_image, name, path)
        for name in ("config", "jit"):
            if name in artifacts:
                self._attempt(self.log_file, name, folder / artifacts[name])

    def close(self) -> None:
        self._attempt(self.end)
        self._active = False

    def _attempt(self, action: Callable[..., object], *arguments: object) -> None:
        if not self._active:
            return
        try:
            action(*arguments)
        # A tracker may raise anything, network errors and exits included, and the training is worth more.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            self._active = False
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            LOG.warning("logger=%s: stopped, the run goes on (%s)", self.extra, reason)


def samples_text(samples: Sequence[tuple[str, str]]) -> str:
    """Return samples as Markdown.

    Args:
        samples: pairs of prompt and continuation.
    """
    return "\n\n".join(f"**{prompt or '(start of a line)'}** … {text}" for prompt, text in samples)
