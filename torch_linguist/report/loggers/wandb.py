"""Weights & Biases."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_linguist.report.loggers.logger import LoggedRun, Tracker


class WandbLogger(Tracker):
    """Sends a run to Weights & Biases.

    Args:
        project: name of the project.
        entity: user or team; None for the default of the login.
        mode: `online`, `offline` (files in `wandb/` of the run folder, sent later by `wandb sync`), or None for the
            environment's choice (`WANDB_MODE`).

    Raises:
        ConfigError: the library is not installed.
    """

    library = "wandb"
    extra = "wandb"

    def __init__(self, project: str = "torch-linguist", entity: str | None = None, mode: str | None = None) -> None:
        super().__init__()
        self._project, self._entity, self._mode = project, entity, mode
        self._run: Any = None

    def open(self, run: LoggedRun, identity: str | None) -> str:
        self._run = self.module.init(
            project=self._project,
            entity=self._entity,
            mode=self._mode,
            name=run.name,
            id=identity,
            resume="allow" if identity else None,
            dir=str(run.folder),
            config=dict(run.parameters),
            settings=self.module.Settings(console="off", silent=True),
        )
        return str(self._run.id)

    def log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log({**scalars, "step": step}, step=step)

    def log_text(self, name: str, text: str, step: int) -> None:
        table = self.module.Table(columns=["step", "text"], data=[[step, text]])
        self._run.log({name: table}, step=step)

    def log_image(self, name: str, path: Path) -> None:
        self._run.log({f"plots/{name}": self.module.Image(str(path))})

    def log_file(self, name: str, path: Path) -> None:
        artifact = self.module.Artifact(f"{self._run.id}-{name}", type="model" if name == "jit" else "configuration")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def end(self) -> None:
        self._run.finish()
