"""MLflow."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_linguist.report.loggers.logger import LoggedRun, Tracker


class MLflowLogger(Tracker):
    """Sends a run to MLflow.

    Args:
        tracking_uri: address of the server, or a local store such as `sqlite:///mlflow.db`; None for MLflow's own
            choice (`MLFLOW_TRACKING_URI`).
        experiment: name of the experiment.

    Raises:
        ConfigError: the library is not installed.
    """

    library = "mlflow"
    extra = "mlflow"

    def __init__(self, tracking_uri: str | None = None, experiment: str = "torch-linguist") -> None:
        super().__init__()
        self._uri, self._experiment = tracking_uri, experiment
        self._client: Any = None
        self._id = ""

    def open(self, run: LoggedRun, identity: str | None) -> str:
        # The client has no global state: another run in the same process is not affected.
        self._client = self.module.MlflowClient(tracking_uri=self._uri)
        if identity:
            self._client.update_run(identity, status="RUNNING")
            self._id = identity
            return identity
        experiment = self._client.get_experiment_by_name(self._experiment)
        number = experiment.experiment_id if experiment else self._client.create_experiment(self._experiment)
        self._id = str(self._client.create_run(number, run_name=run.name).info.run_id)
        parameters = [self.module.entities.Param(key, str(value)) for key, value in run.parameters.items()]
        self._client.log_batch(self._id, params=parameters)
        return self._id

    def log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [self.module.entities.Metric(key, value, now, step) for key, value in scalars.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def log_text(self, name: str, text: str, step: int) -> None:
        self._client.log_text(self._id, text, f"{name}/{step}.md")

    def log_image(self, name: str, path: Path) -> None:
        self._client.log_artifact(self._id, str(path), "plots")

    def log_file(self, name: str, path: Path) -> None:
        self._client.log_artifact(self._id, str(path))

    def end(self) -> None:
        self._client.set_terminated(self._id)
