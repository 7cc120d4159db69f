"""Trackers: what they receive, resumed runs, failures that never end a run, and the libraries themselves offline."""

import importlib.util
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from torch_linguist.errors import ConfigError
from torch_linguist.model import LanguageModel
from torch_linguist.report.loggers import LoggedRun, MLflowLogger, TrackioLogger, WandbLogger
from torch_linguist.report.loggers.logger import Tracker
from torch_linguist.runs.safe_reading import check_contained
from torch_linguist.trainer import Fit
from torch_linguist.trainer.context import TrainingContext

ModelBuilder = Callable[..., LanguageModel]
ContextBuilder = Callable[..., TrainingContext]


def needs(library: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(library) is None, reason=f"needs {library}")


class Recorder(Tracker):
    """Keeps what it receives; raises from the event `failing` on."""

    library = "json"
    extra = "recorder"

    def __init__(self, failing: str = "") -> None:
        super().__init__()
        self.failing, self.events = failing, list[tuple[object, ...]]()

    def _receive(self, *event: object) -> None:
        self.events.append(event)
        if event[0] == self.failing:
            raise ConnectionError(f"no route to host\nat {event[0]}")

    def open(self, run: LoggedRun, identity: str | None) -> str:
        self._receive("open", run.name, identity)
        return "id-7"

    def log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        self._receive("scalars", sorted(scalars), step)

    def log_text(self, name: str, text: str, step: int) -> None:
        self._receive("text", name, text, step)

    def log_image(self, name: str, path: Path) -> None:
        self._receive("image", name)

    def log_file(self, name: str, path: Path) -> None:
        self._receive("file", name, path.name)

    def end(self) -> None:
        self._receive("end")


def use(logger: Tracker, folder: Path, resumed_at: int | None = None) -> None:
    """Make a logger go through a run."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("seed: 1\n")
    (folder / "grid.png").write_bytes((Path(__file__).parents[3] / "assets" / "pixel.png").read_bytes())
    logger.start(LoggedRun(folder, resumed_at, {"model.hidden_size": 16, "seed": 1}))
    first = (resumed_at or 0) + 1
    logger.logged({"train_loss": 3.5, "lr": 0.01}, first)
    logger.logged({"valid_loss": 2.5}, first + 1)
    logger.sampled([("The", "queen")], first + 1)
    logger.run_ended(folder, {"config": "config.yaml"})
    logger.close()


def test_a_tracker_receives_the_run(tmp_path: Path) -> None:
    logger = Recorder()
    use(logger, tmp_path / "run")
    assert logger.events == [
        ("open", "run", None),
        ("scalars", ["lr", "train_loss"], 1),
        ("scalars", ["valid_loss"], 2),
        ("text", "samples", "**The** … queen", 2),
        ("image", "grid"),
        ("file", "config", "config.yaml"),
        ("end",),
    ]
    resumed = Recorder()
    use(resumed, tmp_path / "run", resumed_at=2)
    assert resumed.events[0] == ("open", "run", "id-7")
    anew = Recorder()
    use(anew, tmp_path / "run")
    assert anew.events[0] == ("open", "run", None)


@pytest.mark.parametrize("failing", ["open", "scalars", "end"])
def test_a_tracker_that_fails_never_fails_the_run(
    failing: str,
    build_model: ModelBuilder,
    make_context: ContextBuilder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = Recorder(failing)
    with caplog.at_level(logging.WARNING):
        logger.start(LoggedRun(tmp_path))
        result = Fit(
            build_model("lstm", 50), make_context(max_steps=4, log_every=1), 0.01, 0.0, tmp_path, [logger]
        ).run()
        logger.close()
    assert result.steps == 4
    assert [event[0] for event in logger.events].count(failing) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "logger=recorder: stopped, the run goes on (no route to host)"
    ]


def test_a_missing_library_is_named_with_its_extra() -> None:
    class Missing(Recorder):
        library = "no_such_library"
        extra = "missing"

    with pytest.raises(ConfigError, match=r'logger=missing: .* pip install "torch-linguist\[missing\]"'):
        Missing()


@pytest.mark.integrations
@needs("mlflow")
def test_mlflow_keeps_the_run_in_a_local_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    use(MLflowLogger(store), tmp_path / "run")
    use(MLflowLogger(store), tmp_path / "run", resumed_at=2)
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("torch-linguist")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"model.hidden_size": "16", "seed": "1"}
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "valid_loss")] == [
        (2, 2.5),
        (4, 2.5),
    ]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"config.yaml", "plots", "samples"}


@pytest.mark.integrations
@needs("wandb")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    use(WandbLogger(mode="offline"), tmp_path / "run")
    use(WandbLogger(mode="offline"), tmp_path / "run", resumed_at=2)
    folders = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    identity = json.loads((tmp_path / "run" / "loggers.json").read_text())["wandb"]
    assert all(folder.name.endswith(identity) for folder in folders), "both parts belong to one tracked run"
    assert all(list(folder.glob(f"run-{identity}.wandb")) for folder in folders)
    check_contained(tmp_path / "run")


@pytest.mark.integrations
@needs("trackio")
def test_trackio_keeps_the_run_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path)
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path)
    use(TrackioLogger(), tmp_path / "run")
    use(TrackioLogger(), tmp_path / "run", resumed_at=2)
    assert SQLiteStorage.get_runs("torch-linguist") == ["run"]
    losses = [
        (row["step"], row["valid_loss"])
        for row in SQLiteStorage.get_logs("torch-linguist", "run")
        if "valid_loss" in row
    ]
    assert losses == [(2, 2.5), (4, 2.5)]
    assert trackio.__version__
