"""torch.export: a graph without code, run by `torch.export.load(FILE).module()(tokens, state)`."""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch_linguist.errors import LinguistError
from torch_linguist.export.export_format import CheckedFile
from torch_linguist.runs.files import finite

if TYPE_CHECKING:
    from torch import nn

    from torch_linguist.data import Tokenizer
    from torch_linguist.model import ExportSpecification, LanguageModel


class TorchExportFile(CheckedFile):
    """A graph written by torch.export, with dynamic batch and time axes.

    torch.export fixes the time axis of a simple RNN (it can unroll LSTM and GRU only), so that graph takes one token at
    a time. `settings.json` among the extra files describes the state, which starts at zeros.
    """

    name = "pt2"
    file_name = "model.pt2"
    help = "torch.export: any batch size and length (model=rnn: one token a call); neural models"
    description = (
        "torch.export: `torch.export.load(FILE).module()(tokens, state)`; `settings.json` in it describes the state"
    )

    def serialize(self, network: "nn.Module", tokenizer: "Tokenizer", settings: Mapping[str, Any]) -> bytes:
        import torch

        from torch_linguist.export import graph_tracing

        model = cast("LanguageModel", network)
        specification = graph_tracing.traceable_specification(model, "--pt2")
        one_token = _takes_one_token(specification)
        tokens, state = graph_tracing.example_inputs(model, one_token)
        automatic = torch.export.Dim.AUTO
        token_axes = {0: automatic} if one_token else {0: automatic, 1: automatic}
        state_axes = [graph_tracing.dynamic_state_axes(specification, automatic) for _ in state]
        with _dynamic_time(specification), graph_tracing.quiet_exporters():
            program = torch.export.export(
                graph_tracing.TracedModel(model).eval(),
                (tokens, state),
                dynamic_shapes={"tokens": token_axes, "state": state_axes},
                strict=False,
            )
        described = {**settings, "state": _state_shapes(model), "one_token": one_token}
        extra = {
            "settings.json": json.dumps(finite(described), allow_nan=False),
            "tokenizer.json": tokenizer.to_json(),
            "vocabulary.json": json.dumps(tokenizer.tokens, ensure_ascii=False),
        }
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files=cast("dict[str, Any]", extra))
        return buffer.getvalue()

    def load(self, path: Path, network: "nn.Module") -> Any:
        import torch

        from torch_linguist.export.graph_tracing import GraphRunner

        model = cast("LanguageModel", network)
        with path.open("rb") as file:
            call = torch.export.load(file).module()
        return GraphRunner(call, model, _takes_one_token(model.export_specification()))


def _takes_one_token(specification: "ExportSpecification") -> bool:
    return specification.recurrent_kernel == "rnn"


def _state_shapes(model: "LanguageModel") -> list[list[int | str]]:
    """Return the shape of each tensor of the initial state, with `batch` in place of the batch size."""
    shapes: list[list[int | str]] = [list(tensor.shape) for tensor in model.initial_state(1)]
    for shape in shapes:
        shape[1] = "batch"
    return shapes


@contextmanager
def _dynamic_time(specification: "ExportSpecification") -> Iterator[None]:
    """Let torch.export keep the time axis dynamic: of LSTM and GRU, and of a Transformer even for a single token."""
    with ExitStack() as stack:
        if specification.recurrent_kernel in ("lstm", "gru"):
            try:
                from torch.export import _patches

                stack.enter_context(_patches.register_lstm_while_loop_decomposition())
                stack.enter_context(_patches.register_gru_while_loop_decomposition())
            except (ImportError, AttributeError) as error:
                raise LinguistError("--pt2: recurrent models need torch 2.13; use --jit or --onnx") from error
        elif specification.cache_axis is not None:
            import torch.fx.experimental._config as shape_config

            stack.enter_context(shape_config.patch(backed_size_oblivious=True))  # type: ignore[attr-defined]
        yield
