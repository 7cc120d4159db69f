"""Compilation of the training step by torch.compile: fewer and larger kernels, after a wait before the first update.

Only the model's path from embedded tokens to hidden vectors is compiled, forward and backward. The compiler has no
sparse gradients, which an embedding may need. The loss is fused by hand: it works in chunks whose number depends on the
batch size and writes into preallocated memory, which a compiler cannot improve. The compiled code belongs to the
training, not to the model; validation, scores and export use the plain model.

Compiled sums differ from plain ones in their last digits, and on a GPU dropout draws other masks from the same seed.

Shape legend: B batch, T time, D embedding, H hidden.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeGuard, cast

import torch
from torch import Tensor

from torch_linguist.distributed.data_parallel import Nll, WindowNll, local_rows
from torch_linguist.distributed.processes import world_size
from torch_linguist.model import LanguageModel, State, device_of
from torch_linguist.model.module_modes import autocast
from torch_linguist.model.neural import NeuralLanguageModel
from torch_linguist.trainer.callback import Callback
from torch_linguist.trainer.context import TrainingContext, make_batches
from torch_linguist.trainer.randomness import own_randomness

Forward = Callable[[Tensor, State], tuple[Tensor, State]]


LONG_TRAINING = 10.0
"""Minutes of training from which on the wait for the compiler pays."""


def is_worth_compiling(model: LanguageModel, device: torch.device, precision: str, max_minutes: float | None) -> bool:
    """Return whether `trainer.compile=auto` compiles: a long training of a model with a bounded context.

    The compiler needs half a minute for four layers on a CPU, and a minute or more for twelve on CUDA, which a short
    training does not win back. On a CPU a training without a limit of minutes counts as short, and in float32 nothing
    is compiled, because a step becomes only a seventh shorter. Recurrent models spend their time in fused kernels that
    the compiler does not support.
    """
    if model.context_length == 0:
        return False
    if device.type == "cpu":
        is_long = max_minutes is not None and max_minutes >= LONG_TRAINING
        return is_long and precision == "bf16" and world_size() == 1
    return device.type == "cuda" and (max_minutes is None or max_minutes >= LONG_TRAINING)


class CompiledStep:
    """Replacement for the losses of a model in training; if compiling fails, it calls those of the model from then on.

    A batch of another shape is compiled once more with that dimension left open, so a training compiles two or three
    times at most.

    Args:
        model: model to train, not modified.
        callback: receives a note if compiling fails.

    Attributes:
        compiled: whether compiling has succeeded so far.
    """

    def __init__(self, model: LanguageModel, callback: Callback) -> None:
        self._model, self._callback = model, callback
        self.compiled = True
        # One graph or none: torch.compile would otherwise silently leave out what it does not support, which is
        # everything in a recurrent model.
        compile_whole = partial(torch.compile, fullgraph=True, options=_options(model))
        if _splits(model):
            encode = cast(Forward, compile_whole(model.encode))
            encode_windows = compile_whole(partial(_encode_windows, model))
            self._nll: Nll = partial(_nll_of_encoded, model, encode)
            self._window_nll: WindowNll = partial(_window_nll_of_encoded, model, encode_windows)
            return
        if model.has_hidden:
            hidden = cast(Forward, compile_whole(model.hidden))
            self._nll = partial(_nll_of_hidden, model, hidden)
        else:  # A model with its own loss is compiled as a whole.
            self._nll = cast(Nll, compile_whole(model.nll))
        self._window_nll = partial(_window_nll_of_nll, model, self._nll)

    def __call__(self, tokens: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the nll [B, T] of targets [B, T] after tokens [B, T], and the new state."""
        if self.compiled:
            try:
                return self._nll(tokens, targets, state)
            except _compile_errors() as error:
                self.give_up(error)
        return self._model.nll(tokens, targets, state)

    def window_nll(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the nll [B, T] of texts that start from the initial state and whose new state nothing needs."""
        if self.compiled:
            try:
                return self._window_nll(tokens, targets)
            except _compile_errors() as error:
                self.give_up(error)
        return self._model.window_nll(tokens, targets)

    def give_up(self, error: Exception) -> None:
        """Continue without compiling, and report why."""
        self.compiled = False
        self._callback.noted(
            f"trainer.compile: this model cannot be compiled here ({_reason(error)}); training "
            "continues uncompiled, as with trainer.compile=false"
        )


def _options(model: LanguageModel) -> dict[str, bool] | None:
    """Return options of the compiler. On a CPU, C++ also calls the kernels, of which a small model has many."""
    return {"cpp_wrapper": True} if device_of(model).type == "cpu" else None


def _splits(model: LanguageModel) -> TypeGuard[NeuralLanguageModel]:
    """Return whether the loss of a model is that of its `embedded`, `encode` and `hidden_nll`."""
    if not isinstance(model, NeuralLanguageModel):
        return False
    return all(getattr(type(model), name) is getattr(NeuralLanguageModel, name) for name in ("nll", "hidden"))


def _encode_windows(model: NeuralLanguageModel, embedded: Tensor) -> Tensor:
    return model.encode(embedded, model.initial_state(len(embedded)))[0]


def _nll_of_hidden(
    model: LanguageModel, hidden_of: Forward, tokens: Tensor, targets: Tensor, state: State
) -> tuple[Tensor, State]:
    hidden, new_state = hidden_of(tokens, state)
    return model.hidden_nll(hidden, targets), new_state


def _nll_of_encoded(
    model: NeuralLanguageModel, encode: Forward, tokens: Tensor, targets: Tensor, state: State
) -> tuple[Tensor, State]:
    encoded, new_state = encode(model.embedded(tokens), state)
    return model.hidden_nll(model.dropout(encoded), targets), new_state


def _window_nll_of_encoded(
    model: NeuralLanguageModel, encode: Callable[[Tensor], Tensor], tokens: Tensor, targets: Tensor
) -> Tensor:
    return model.hidden_nll(model.dropout(encode(model.embedded(tokens))), targets)


def _window_nll_of_nll(model: LanguageModel, nll: Nll, tokens: Tensor, targets: Tensor) -> Tensor:
    return nll(tokens, targets, model.initial_state(len(tokens)))[0]


def _compile_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a failed compilation; importing them takes a second."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return TorchDynamoException, FailOnRecompileLimitHit


def compiled_step(model: LanguageModel, context: TrainingContext, callback: Callback) -> CompiledStep | None:
    """Return the compiled training step, ready to use, or None if the settings ask for the plain model.

    One batch is run forward and backward before the clock of the training starts. Weights, gradients and random states
    stay as they are.

    Args:
        model: model to train.
        context: corpus and settings.
        callback: receives a note before the wait, and one with the time taken or with the reason of a failure.
    """
    settings, device = context.settings, device_of(model)
    choice: bool | Literal["auto"] = settings.compile
    if choice == "auto":
        choice = is_worth_compiling(model, device, settings.precision, settings.max_minutes)
    if settings.shard or not choice:
        return None
    callback.noted("trainer.compile: compiling the training step, which takes half a minute or more")
    begin = time.perf_counter()
    step = CompiledStep(model, callback)
    try:
        _try(step, model, context)
    except _compile_errors() as error:  # Raised by the backward pass.
        step.give_up(error)
    if not step.compiled:
        return None
    whole = "; the processes exchange whole tables, not the rows that a batch touched" if world_size() > 1 else ""
    callback.noted(f"trainer.compile: the training step was compiled in {time.perf_counter() - begin:.1f} s{whole}")
    return step


def _try(step: CompiledStep, model: LanguageModel, context: TrainingContext) -> None:
    """Run one batch forward and backward and leave the model unchanged."""
    settings, device, mode = context.settings, device_of(model), model.training
    batch = make_batches(context.corpus.train, settings, bool(model.context_length), context.seed).next()
    own = local_rows(len(batch.tokens))
    tokens, targets = batch.tokens[own].to(device), batch.targets[own].to(device)
    try:
        with own_randomness(context.seed):
            model.train()
            with autocast(device, settings.precision):
                if batch.continues:
                    nll, _ = step(tokens, targets, model.initial_state(len(tokens)))
                else:
                    nll = step.window_nll(tokens, targets)
            (nll.sum() / nll.numel()).backward()  # type: ignore[no-untyped-call]
    finally:
        model.zero_grad(set_to_none=True)
        model.train(mode)


def _reason(error: BaseException) -> str:
    """Return the cause in one line; the compiler's own messages fill pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
