"""The event files of a run, read back by TensorBoard itself."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.compat.tensorflow_stub.io import gfile  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar import layout_pb2  # type: ignore[import-untyped]
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # type: ignore[import-untyped]

from torch_linguist.errors import WriteError
from torch_linguist.model import LanguageModel
from torch_linguist.report.loggers import LoggedRun, TensorBoardLogger
from torch_linguist.report.loggers.tensorboard import event_folder
from torch_linguist.report.plots import plot_overfit
from torch_linguist.trainer import Fit
from torch_linguist.trainer.context import TrainingContext

ModelBuilder = Callable[..., LanguageModel]
WORDS = ["<eos>", "<unk>", *(f"word{index}" for index in range(48))]


def started(folder: Path, resumed_at: int | None = None, *, histograms: bool = False) -> TensorBoardLogger:
    """A logger of the run in a folder."""
    logger = TensorBoardLogger(histograms)
    logger.start(LoggedRun(folder, resumed_at))
    return logger


def read(folder: Path) -> Any:
    """The events of the run in a folder."""
    events = EventAccumulator(str(event_folder(folder)), size_guidance={"tensors": 0, "scalars": 0})
    return events.Reload()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_everything_is_in_one_run(family: str, build_model: ModelBuilder, tmp_path: Path) -> None:
    model = build_model(family, 50).train()
    logger = started(tmp_path / "tb")
    assert not (tmp_path / "tb").exists()
    logger.model_ready(model, WORDS)
    assert not (tmp_path / "tb").exists()
    before = torch.get_rng_state()
    logger.logged({"train_loss": 3.0, "train_perplexity": 20.1, "lr": 0.01, "gradient_norm": 0.5, "seconds": 9.0}, 10)
    assert model.training, "the graph was drawn amid a training, which goes on as if nothing had happened"
    assert torch.equal(torch.get_rng_state(), before)
    logger.logged({"valid_loss": 2.5, "valid_perplexity": 12.2}, 20)
    logger.sampled([("", "a *king*"), ("The", "The queen")], 20)
    logger.finished(model, WORDS, {"model": family, "lr": 0.01, "layers": 2}, {"final/valid_perplexity": 12.0}, 20)
    logger.close()
    logger.close()
    assert sorted(path.suffix for path in (tmp_path / "tb").rglob("events.*") if path.is_file()) != []
    assert len({path.parent for path in (tmp_path / "tb").rglob("events.*")}) == 1, "one run, not two"
    events = read(tmp_path / "tb")
    tags = events.Tags()
    assert set(tags["scalars"]) == {
        "loss/train", "loss/valid", "perplexity/train", "perplexity/valid", "training/learning_rate",
        "training/gradient_norm", "final/valid_perplexity",
    }  # fmt: skip
    assert [(event.step, event.value) for event in events.Scalars("loss/valid")] == [(20, 2.5)]
    assert tags["graph"]
    assert "samples/text_summary" in tags["tensors"]
    text = events.Tensors("samples/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "(start of a line)" in text
    assert "The queen" in text
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = HParamsPluginData.FromString(content).session_start_info.hparams
    assert session["model"].string_value == family
    assert session["lr"].number_value == pytest.approx(0.01)
    (words,) = (tmp_path / "tb").rglob("metadata.tsv")
    assert words.read_text(encoding="utf-8").splitlines() == WORDS
    (vectors,) = (tmp_path / "tb").rglob("tensors.tsv")
    rows = [line.split("\t") for line in vectors.read_text().splitlines()]
    assert (len(rows), len(rows[0])) == (50, 16)
    assert [float(value) for value in rows[7]] == pytest.approx(model.embedding.weight[7].tolist(), abs=1e-5)  # type: ignore[union-attr,index]
    assert "metadata.tsv" in (event_folder(tmp_path / "tb") / "projector_config.pbtxt").read_text()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_training_without_a_row_has_its_graph(build_model: ModelBuilder, tmp_path: Path) -> None:
    model = build_model("lstm", 50)
    saved = started(tmp_path / "saved")
    saved.model_ready(model, WORDS)
    saved.flush()
    assert read(tmp_path / "saved").Tags()["graph"]
    saved.close()
    ended = started(tmp_path / "ended")
    ended.model_ready(model, WORDS)
    ended.finished(model, WORDS, {}, {}, 3)
    ended.close()
    assert read(tmp_path / "ended").Tags()["graph"]


def test_a_resumed_run_hides_what_it_does_again(tmp_path: Path) -> None:
    first = started(tmp_path)
    for step in (10, 20, 30):
        first.logged({"train_loss": float(step)}, step)
    first.close()
    second = started(tmp_path, resumed_at=20)
    second.logged({"train_loss": -30.0}, 30)
    second.close()
    values = [(event.step, event.value) for event in read(tmp_path).Scalars("loss/train")]
    assert values == [(10, 10.0), (20, 20.0), (30, -30.0)]


def test_tokens_of_white_space_keep_the_words_apart(build_model: ModelBuilder, tmp_path: Path) -> None:
    odd = ["\n", "a\tb", " lead", "tab\t", "", "line\nbreak", "\r", "é", "\u2028", "x\x85y"]
    logger = started(tmp_path)
    logger.finished(build_model("lstm", len(odd)), odd, {}, {}, 1)
    logger.close()
    (words,) = tmp_path.rglob("metadata.tsv")
    lines = words.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    assert len(lines) == len(odd)
    assert not any("\t" in line or line == "" for line in lines)
    assert lines[7] == "é"


def test_plots_and_charts_of_train_and_valid_together(tmp_path: Path) -> None:
    (tmp_path / "overfit.csv").write_text("step,loss\n1,4.0\n2,1.0\n")
    plot_overfit(tmp_path / "overfit.csv", tmp_path / "overfit.png", 0.1)
    logger = started(tmp_path)
    logger.logged({"train_loss": 3.0}, 1)
    logger.logged({"valid_loss": 3.0}, 2)
    logger.close()
    events = read(tmp_path)
    assert events.Tags()["images"] == ["plots/overfit"]
    layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert charts["loss"] == sorted(events.Tags()["scalars"]) == ["loss/train", "loss/valid"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_graph_opens_to_the_layers(build_model: ModelBuilder, tmp_path: Path) -> None:
    logger = started(tmp_path)
    logger.model_ready(build_model("transformer", 50), WORDS)
    logger.flush()
    logger.close()
    scopes = {part for node in read(tmp_path).Graph().node for part in node.name.split("/")}
    assert {"Transformer[model]", "Block[0]", "Block[1]", "Embedding[embedding]"} <= scopes


def test_the_event_folder_names_the_run(tmp_path: Path) -> None:
    run = tmp_path / "lstm"
    run.mkdir()
    assert event_folder(run) == run / "tensorboard" / "lstm"
    (run / "tensorboard").mkdir()
    (run / "tensorboard" / "events.out.tfevents.1").touch()
    assert event_folder(run) == run / "tensorboard"


def test_histograms_of_the_weights_on_request(
    build_model: ModelBuilder, make_context: Callable[..., TrainingContext], tmp_path: Path
) -> None:
    logger, model = started(tmp_path, histograms=True), build_model("gru", 50)
    Fit(model, make_context(max_steps=4, eval_every=2), 0.01, 0.0, tmp_path, [logger]).run()
    logger.close()
    events = read(tmp_path)
    assert set(events.Tags()["histograms"]) == {f"weights/{name}" for name, _ in model.named_parameters()}
    last = events.Histograms("weights/embedding.weight")[-1]
    weight = model.get_parameter("embedding.weight")
    assert (last.step, last.histogram_value.num) == (4, weight.numel())
    assert last.histogram_value.max == pytest.approx(weight.max().item())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = started(tmp_path)
    logger.logged({"train_loss": 3.0}, 10)
    logger.flush()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gfile.LocalFileSystem, "append", full)
    logger.logged({"train_loss": 2.0}, 20)
    with pytest.raises(WriteError, match=f"^{tmp_path}.*: cannot be written .No space left on device"):
        logger.flush()
