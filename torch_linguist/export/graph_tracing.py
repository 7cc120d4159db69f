"""Exports that hold a graph and no code: torch.export (`.pt2`) and ONNX, both with the state as explicit tensors.

Batch and time are dynamic wherever that can be had. The one exception is the simple RNN in `.pt2`, whose time axis
torch.export would fix (it has ways around that for LSTM and GRU alone): its file is a function of one token.

Shape legend: B batch, T time, V vocabulary.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.export.comparison import ExportReport, compare
from torch_linguist.export.torchscript import kept_if_equal
from torch_linguist.model import LanguageModel, evaluating
from torch_linguist.runs.files import finite

EXAMPLE = (3, 5)
"""Batch size and length that graphs are traced with; they are checked on others."""


class _Traced(nn.Module):
    """`forward` alone, with the names that the graph's inputs shall have."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        logits, new_state = self.model(tokens, state)
        return logits, new_state


class GraphRunner:
    """A graph as the rest of the package calls a model.

    Args:
        call: from tokens [B, T] and a state to logits [B, T, V] and the new state.
        model: the eager one, which knows the initial state.
        single: whether the graph takes one token at a time.
    """

    def __init__(self, call: Any, model: LanguageModel, single: bool) -> None:
        self._call, self._model, self._single = call, model, single
        self.vocab_size, self.context_length = model.vocab_size, model.context_length

    def __call__(self, tokens: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if not self._single:
            logits, new_state = self._call(tokens, list(state))
            return logits, list(new_state)
        columns = []
        for place in range(tokens.shape[1]):
            logits, state = self._call(tokens[:, place : place + 1], list(state))
            columns.append(logits)
        return torch.cat(columns, dim=1), list(state)

    def initial_state(self, batch_size: int) -> list[Tensor]:
        """The eager model's."""
        return self._model.initial_state(batch_size)


def export_pt2(
    model: LanguageModel, tokenizer: Tokenizer, path: Path, settings: Mapping[str, Any] | None = None
) -> tuple[ExportReport, GraphRunner]:
    """Writes a model's graph by torch.export and compares it with the eager model.

    `torch.export.load(path).module()(tokens, state)` runs it; `settings.json` among its extra files says the shapes of
    the state, whose start is zeros.

    Args:
        model: a neural model; it is left in the mode it was in.
        tokenizer: the one it was trained with.
        path: of the file.
        settings: plain types that are kept in the file.

    Returns:
        Where it is and how close to the eager model; and the graph, read back from the file.

    Raises:
        LinguistError: the model has no such graph, the file's outputs differ, or it cannot be written.
    """
    _check_traceable(model, "--pt2")
    single = model.export_specification().recurrent_kernel == "rnn"
    tokens, state = _example(model, single)
    automatic = torch.export.Dim.AUTO
    axes: dict[int, Any] = {0: automatic} if single else {0: automatic, 1: automatic}
    extra = {
        "settings.json": json.dumps(
            finite({**(settings or {}), "state": state_shapes(model), "one_token": single}), allow_nan=False
        ),
        "tokenizer.json": tokenizer.to_json(),
        "vocabulary.json": json.dumps(tokenizer.tokens, ensure_ascii=False),
    }
    with evaluating(model), kept_if_equal(path) as (temporary, differences):
        with _any_length(model), _quiet(), torch.no_grad():
            program = torch.export.export(
                _Traced(model).eval(),
                (tokens, state),
                dynamic_shapes={"tokens": axes, "state": [_state_axes(model, automatic) for _ in state]},
                strict=False,
            )
        # The name decides the format.
        named = temporary.with_name(f"{temporary.name}.pt2")
        try:
            torch.export.save(program, named, extra_files=dict(extra))
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)
        with temporary.open("rb") as file:
            runner = GraphRunner(torch.export.load(file).module(), model, single)
        with _quiet():
            differences.append(compare(model, runner))
    return ExportReport(path, differences[0], path.stat().st_size / 2**20), runner


def export_onnx(model: LanguageModel, tokenizer: Tokenizer, path: Path) -> tuple[ExportReport, GraphRunner]:
    """Writes a model as ONNX and compares it, run by onnxruntime, with the eager model.

    Inputs are `tokens` and `state_0` ..., outputs `logits` and `new_state_0` ...; batch and time are dynamic. The
    vocabulary is kept in the file's metadata.

    Args:
        model: see `export_pt2`.
        tokenizer: see `export_pt2`.
        path: see `export_pt2`.

    Returns:
        See `export_pt2`.

    Raises:
        LinguistError: see `export_pt2`; or the packages of the extra `onnx` are not there.
    """
    _check_traceable(model, "--onnx")
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise LinguistError(
            f'--onnx: needs {error.name}; pip install "torch-linguist[onnx]" brings what is missing'
        ) from error
    count = len(model.initial_state(1))
    names = ["tokens", *(f"state_{place}" for place in range(count))]
    outputs = ["logits", *(f"new_state_{place}" for place in range(count))]
    with evaluating(model), kept_if_equal(path) as (temporary, differences):
        with _quiet(), torch.no_grad():
            _write_onnx(model, temporary, names, outputs)
        graph = onnx.load(str(temporary))
        entry = graph.metadata_props.add()
        entry.key, entry.value = "vocabulary.json", json.dumps(tokenizer.tokens, ensure_ascii=False)
        onnx.save(graph, str(temporary))
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])

        def call(tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            given = zip(names, [tokens, *state], strict=True)
            found = session.run(outputs, {name: tensor.numpy() for name, tensor in given})
            return torch.from_numpy(found[0]), [torch.from_numpy(one) for one in found[1:]]

        runner = GraphRunner(call, model, single=False)
        differences.append(compare(model, runner))
    return ExportReport(path, differences[0], path.stat().st_size / 2**20), runner


def state_shapes(model: LanguageModel) -> list[list[int | str]]:
    """The shape of each tensor of the initial state, `batch` where the batch is."""
    shapes: list[list[int | str]] = []
    for tensor in model.initial_state(1):
        shape: list[int | str] = list(tensor.shape)
        shape[1] = "batch"
        shapes.append(shape)
    return shapes


def _write_onnx(model: LanguageModel, path: Path, names: list[str], outputs: list[str]) -> None:
    tokens, state = _example(model, single=False)
    network = _Traced(model).eval()
    if model.export_specification().cache_axis is not None:
        dynamic = torch.export.Dim.DYNAMIC
        program = torch.onnx.export(
            network,
            (tokens, state),
            dynamo=True,
            verbose=False,
            input_names=names,
            output_names=outputs,
            dynamic_shapes={
                "tokens": {0: dynamic, 1: dynamic},
                "state": [_state_axes(model, dynamic) for _ in state],
            },
        )
        assert program is not None
        program.save(str(path), external_data=False)
        return
    # The newer exporter fixes the time axis of recurrent layers; the older one writes ONNX's own LSTM, GRU and RNN.
    axes = {name: {1: "batch"} for name in (*names[1:], *outputs[1:])}
    axes |= {"tokens": {0: "batch", 1: "time"}, "logits": {0: "batch", 1: "time"}}
    torch.onnx.export(
        network,
        (tokens, state),
        str(path),
        dynamo=False,
        input_names=names,
        output_names=outputs,
        dynamic_axes=axes,
        opset_version=17,
    )


def _check_traceable(model: LanguageModel, option: str) -> None:
    if not model.export_specification().traceable:
        raise LinguistError(
            f"{option}: a {type(model).__name__} is tables and searches, which such a graph cannot hold; take --jit"
        )


def _example(model: LanguageModel, single: bool) -> tuple[Tensor, list[Tensor]]:
    """Tokens and a state in the middle of a text: an empty past would be taken for the rule."""
    batch_size, length = EXAMPLE
    tokens = torch.randint(
        model.vocab_size, (batch_size, 1 if single else length), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        _, state = model(tokens, model.initial_state(batch_size))
        cache_axis = model.export_specification().cache_axis
        if cache_axis is not None and state[0].shape[cache_axis] < 2:
            _, state = model(tokens, state)
    return tokens, [tensor.clone().contiguous() for tensor in state]


def _state_axes(model: LanguageModel, dynamic: Any) -> dict[int, Any]:
    cache_axis = model.export_specification().cache_axis
    return {1: dynamic} if cache_axis is None else {1: dynamic, cache_axis: dynamic}


@contextmanager
def _any_length(model: LanguageModel) -> Iterator[None]:
    """Lets torch.export keep the time axis open: of LSTM and GRU, and of a Transformer at a length of one, too."""
    specification = model.export_specification()
    with ExitStack() as stack:
        if specification.recurrent_kernel in ("lstm", "gru"):
            try:
                from torch.export import _patches

                stack.enter_context(_patches.register_lstm_while_loop_decomposition())
                stack.enter_context(_patches.register_gru_while_loop_decomposition())
            except (ImportError, AttributeError) as error:
                raise LinguistError("--pt2: recurrent models need torch 2.13 for it; take --jit or --onnx") from error
        elif specification.cache_axis is not None:
            import torch.fx.experimental._config as shape_config

            stack.enter_context(shape_config.patch(backed_size_oblivious=True))  # type: ignore[attr-defined]
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of themselves and of packages that no model here needs."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
