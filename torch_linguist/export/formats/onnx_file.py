"""ONNX: a graph for onnxruntime and other runtimes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch_linguist.errors import LinguistError
from torch_linguist.export.export_format import CheckedFile

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torch_linguist.data import Tokenizer
    from torch_linguist.model import LanguageModel


class OnnxFile(CheckedFile):
    """An ONNX graph with dynamic batch and time axes, compared with the model as onnxruntime runs it.

    Inputs are `tokens` and `state_0` ..., outputs `logits` and `new_state_0` .... The vocabulary is kept in the
    metadata.
    """

    name = "onnx"
    file_name = "model.onnx"
    help = 'ONNX: any batch size and length; needs pip install "torch-linguist[onnx]"; neural models'
    description = "ONNX: inputs `tokens`, `state_0` …, outputs `logits`, `new_state_0` …; the state starts at zeros"

    def serialize(self, network: "nn.Module", tokenizer: "Tokenizer", settings: Mapping[str, Any]) -> bytes:
        from torch_linguist.export import graph_tracing

        model = cast("LanguageModel", network)
        graph_tracing.traceable_specification(model, "--onnx")
        try:
            import onnx
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise LinguistError(
                f'--onnx: needs the package {error.name}; run pip install "torch-linguist[onnx]"'
            ) from error
        with graph_tracing.quiet_exporters():
            graph = onnx.load_model_from_string(_graph(model))
        entry = graph.metadata_props.add()
        entry.key, entry.value = "vocabulary.json", json.dumps(tokenizer.tokens, ensure_ascii=False)
        content: bytes = graph.SerializeToString()
        return content

    def load(self, path: Path, network: "nn.Module") -> Any:
        import onnxruntime
        import torch

        from torch_linguist.export.graph_tracing import GraphRunner

        model = cast("LanguageModel", network)
        names, outputs = _names(model)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

        def call(tokens: "Tensor", state: "list[Tensor]") -> "tuple[Tensor, list[Tensor]]":
            given = zip(names, [tokens, *state], strict=True)
            found = session.run(outputs, {name: tensor.numpy() for name, tensor in given})
            return torch.from_numpy(found[0]), [torch.from_numpy(one) for one in found[1:]]

        return GraphRunner(call, model)


def _names(model: "LanguageModel") -> tuple[list[str], list[str]]:
    """Return the names of the graph's inputs and outputs."""
    count = len(model.initial_state(1))
    inputs = ["tokens", *(f"state_{place}" for place in range(count))]
    return inputs, ["logits", *(f"new_state_{place}" for place in range(count))]


def _graph(model: "LanguageModel") -> bytes:
    """Return the serialized graph."""
    import torch

    from torch_linguist.export import graph_tracing
    from torch_linguist.export.onnx_layers import with_onnx_layers

    tokens, state = graph_tracing.example_inputs(model)
    names, outputs = _names(model)
    dynamic = torch.export.Dim.DYNAMIC
    state_axes = graph_tracing.dynamic_state_axes(model.export_specification(), dynamic)
    program = torch.onnx.export(
        graph_tracing.TracedModel(with_onnx_layers(model)).eval(),
        (tokens, state),
        dynamo=True,
        verbose=False,
        input_names=names,
        output_names=outputs,
        dynamic_shapes={"tokens": {0: dynamic, 1: dynamic}, "state": [state_axes for _ in state]},
    )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content
