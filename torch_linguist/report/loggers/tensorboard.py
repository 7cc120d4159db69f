"""TensorBoard: scalars, model graph, plots, samples, embedding with its words, hyperparameters.

TensorBoard is imported, and the graph drawn, with the first event, so that the first update does not wait for it.
"""

import functools
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torch_linguist.distributed.sharding import is_sharded
from torch_linguist.model import LanguageModel, device_of
from torch_linguist.report.loggers.logger import LoggedRun, Logger, samples_text
from torch_linguist.runs.files import writing
from torch_linguist.trainer.callback import Fact

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from torch_linguist.trainer.fit import Fit

MOST_WORDS = 2000
"""Words in the projector: the first of the vocabulary, which are the most frequent."""

NAMES = {
    "train_loss": "loss/train",
    "valid_loss": "loss/valid",
    "train_perplexity": "perplexity/train",
    "valid_perplexity": "perplexity/valid",
    "lr": "training/learning_rate",
    "gradient_norm": "training/gradient_norm",
    "tokens_per_second": "training/tokens_per_second",
    "epoch": "training/epoch",
}

CHARTS = {
    "training": {
        "loss": ["Multiline", ["loss/train", "loss/valid"]],
        "perplexity": ["Multiline", ["perplexity/train", "perplexity/valid"]],
    }
}
"""Charts that show train and valid together, on the tab Custom Scalars."""

FINAL = ".final"
"""Suffix of the event file with the scores of the best model."""

LOG = logging.getLogger("torch_linguist.report")


def event_folder(run_folder: Path) -> Path:
    """Return the folder for the event files of a run: `tensorboard/NAME`, so that TensorBoard shows the run's name.

    A resumed run with event files in `tensorboard/` itself keeps them there.
    """
    folder = run_folder / "tensorboard"
    return folder if any(folder.glob("events.*")) else folder / run_folder.resolve().name


def _names_folder(method: Callable[..., None]) -> Callable[..., None]:
    """Make a full disk an error that names the folder: TensorBoard's own thread writes, and its error names no file."""

    @functools.wraps(method)
    def wrapped(self: "TensorBoardLogger", *args: Any, **kwargs: Any) -> None:
        with writing(self.folder):
            method(self, *args, **kwargs)

    return wrapped


class TensorBoardLogger(Logger):
    """Writes event files. They are created with the first event.

    Args:
        histograms: whether to write a histogram of each parameter at every validation.
    """

    def __init__(self, histograms: bool = False) -> None:
        self._histograms = histograms
        self._writer: SummaryWriter | None = None
        self._undrawn: LanguageModel | None = None

    def start(self, run: LoggedRun) -> None:
        self.folder, self._plots = event_folder(run.folder), run.plots
        self._purge = None if run.resumed_at is None else run.resumed_at + 1
        # Events of an abandoned training, or final scores that were not final, must not appear beside new ones.
        for path in self.folder.glob("events.*" if run.resumed_at is None else f"events.*{FINAL}"):
            path.unlink()

    @property
    def writer(self) -> "SummaryWriter":
        """The writer, created on first use. It starts with the layout of the charts, the plots, and the graph."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=self._purge)
            self._writer.add_custom_scalars(CHARTS)
            for path in self._plots:
                self._add_image(self._writer, f"plots/{path.stem}", path, 0)
        if self._undrawn is not None:
            model, self._undrawn = self._undrawn, None
            self._draw_graph(model, self._writer)
        return self._writer

    def model_ready(self, model: LanguageModel, tokens: Sequence[str]) -> None:
        self._undrawn = model

    def _add_image(self, writer: "SummaryWriter", tag: str, path: Path, step: int) -> None:
        if path.is_file():
            from matplotlib import image

            writer.add_image(tag, image.imread(path)[..., :3], step, dataformats="HWC")

    def _draw_graph(self, model: LanguageModel, writer: "SummaryWriter") -> None:
        if any(map(is_sharded, model.parameters())):
            return  # This process has only a part of each weight.
        wrapped = TraceableModel(model)
        example = torch.zeros(1, 4, dtype=torch.int64, device=device_of(model))
        mode = model.training
        wrapped.eval()
        try:
            with warnings.catch_warnings():
                # Tracing fixes the shapes, which does not matter for a picture.
                warnings.simplefilter("ignore")
                writer.add_graph(wrapped, example)
        except RuntimeError as error:
            LOG.warning("TensorBoard: no graph of this model (%s)", str(error).splitlines()[0])
        finally:
            model.train(mode)

    @_names_folder
    def logged(self, scalars: Mapping[str, float], step: int) -> None:
        for key, value in scalars.items():
            if key in NAMES:
                self.writer.add_scalar(NAMES[key], value, step)

    @_names_folder
    def sampled(self, samples: Sequence[tuple[str, str]], step: int) -> None:
        self.writer.add_text("samples", samples_text(samples), step)

    @_names_folder
    def validated(self, training: "Fit", loss: float) -> None:
        if self._histograms:
            for name, parameter in training.model.named_parameters():
                self.writer.add_histogram(f"weights/{name}", parameter.detach().float().cpu(), training.state.step)

    @_names_folder
    def profiled(self, table: Path, step: int) -> None:
        from torch_linguist.report.plots import plot_profile

        picture = table.with_suffix(".png")
        plot_profile(table, picture)
        self.writer.add_text("profile/operations", profile_text(table), step)
        self._add_image(self.writer, "profile/operations", picture, step)

    def before_checkpoint(self, training: "Fit") -> None:
        self.flush()

    @_names_folder
    def flush(self) -> None:
        """Write pending events to disk, the graph of the model included."""
        if self._writer is not None or self._undrawn is not None:
            self.writer.flush()

    @_names_folder
    def finished(
        self,
        model: LanguageModel,
        tokens: Sequence[str],
        hyperparameters: Mapping[str, Fact],
        metrics: Mapping[str, float],
        step: int,
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        # The scores go to a file of their own, which is replaced if the training continues later.
        self.flush()
        self.close()
        for path in (*self.folder.glob(f"events.*{FINAL}"), self.folder / "projector_config.pbtxt"):
            path.unlink(missing_ok=True)
        self._writer = SummaryWriter(str(self.folder), filename_suffix=FINAL)
        embedding = model.input_embedding
        if embedding is not None:
            shown = min(MOST_WORDS, len(tokens))
            # The projector's metadata is tab-separated, one word per line.
            words = [
                token if token.isprintable() and token.strip() == token != "" else repr(token)
                for token in tokens[:shown]
            ]
            self.writer.add_embedding(embedding.weight.detach()[:shown].cpu().float(), words, tag="embedding")
        # `SummaryWriter.add_hparams` would create a second run. It writes these three summaries.
        file_writer = self.writer._get_file_writer()  # type: ignore[no-untyped-call]
        for summary in hparams(dict(hyperparameters), dict(metrics)):  # type: ignore[no-untyped-call]
            file_writer.add_summary(summary)
        for path in self._plots:
            self._add_image(self.writer, f"plots/{path.stem}", path, step)
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    @_names_folder
    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def profile_text(table: Path) -> str:
    """Return the operations of `profile.csv` that take the most time and memory, as Markdown."""
    from torch_linguist.report.plots import largest_operations, read_profile, slowest_operations

    frame = read_profile(table)
    lines = ["**Most time** per update", "", "| operation | share | ms | ms with children | calls |"]
    lines.append("|---|---:|---:|---:|---:|")
    for row in slowest_operations(frame, 20).itertuples():
        name = str(row.operation).replace("|", "\\|")
        lines.append(f"| `{name}` | {row.share:.1%} | {row.self_ms:.3f} | {row.total_ms:.3f} | {row.calls:g} |")
    lines += ["", "**Most memory** (allocated minus freed) per update", "", "| operation | MiB | calls |"]
    lines.append("|---|---:|---:|")
    for row in largest_operations(frame, 20).itertuples():
        name = str(row.operation).replace("|", "\\|")
        lines.append(f"| `{name}` | {row.memory_mib:.3f} | {row.calls:g} |")
    return "\n".join(lines)


class TraceableModel(nn.Module):
    """A model without its state, which cannot be traced."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens, self.model.initial_state(1))[0]
        return logits
