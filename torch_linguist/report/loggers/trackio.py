"""Trackio."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_linguist.report.loggers.logger import LoggedRun, Tracker


class TrackioLogger(Tracker):
    """Sends a run to Trackio: a local dashboard (`trackio show`), or a Space of the Hugging Face hub.

    Args:
        project: name of the project.
        space_id: Space of the dashboard, such as `user/name`; None keeps everything on this machine.

    Raises:
        ConfigError: the library is not installed.
    """

    library = "trackio"
    extra = "trackio"

    def __init__(self, project: str = "torch-linguist", space_id: str | None = None) -> None:
        super().__init__()
        self._project, self._space = project, space_id
        self._run: Any = None

    def open(self, run: LoggedRun, identity: str | None) -> str:
        self._run = self.module.init(
            project=self._project,
            name=identity or run.name,
            space_id=self._space,
            config=dict(run.parameters),
            resume="allow" if identity else "never",
            embed=False,
        )
        return str(self._run.name)

    def log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def log_text(self, name: str, text: str, step: int) -> None:
        self._run.log({name: self.module.Markdown(text)}, step=step)

    def log_image(self, name: str, path: Path) -> None:
        self._run.log({f"plots/{name}": self.module.Image(str(path))})

    def log_file(self, name: str, path: Path) -> None:
        self._run.log_artifact(str(path), name=f"{self._run.name}-{name}", type="model" if name == "jit" else None)

    def end(self) -> None:
        self._run.finish()
