"""The Transformer against plain attention, written out token by token in float64."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torch_linguist.errors import LinguistError
from torch_linguist.model import LanguageModel, Transformer
from torch_linguist.model.attention.block import ACTIVATIONS
from torch_linguist.model.attention.operations import RootMeanSquareNorm, rotate

ModelBuilder = Callable[..., LanguageModel]
V, D, A = 50, 16, 2
E = D // A


def norm(features: Tensor, weight: Tensor) -> Tensor:
    return features / torch.sqrt(features.square().mean() + 1e-6) * weight


def rotated(vector: Tensor, position: int) -> Tensor:
    """Rotary positions by complex numbers: pair (i, i + E/2) is turned by position / 10000^(2i/E)."""
    angle = torch.tensor([position / 10000 ** (2 * index / E) for index in range(E // 2)], dtype=torch.float64)
    turned = torch.complex(vector[: E // 2], vector[E // 2 :]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag])


def reference(model: Transformer, tokens: list[int], activation: str) -> Tensor:
    """Log-probabilities [T, V], one token, head and key at a time."""
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    stream = [weights["embedding.weight"][token] for token in tokens]
    ones = torch.ones((), dtype=torch.float64)
    starts = [norm(one, ones) for one in stream]
    for block in range(model.num_layers):
        own = {name.removeprefix(f"blocks.{block}."): tensor for name, tensor in weights.items()}
        if "stream_factors" in own:
            kept, mixed = own["stream_factors"]
            stream = [kept * one + mixed * start for one, start in zip(stream, starts, strict=True)]
        packed = [own["query_key_value.weight"] @ norm(one, own["attention_norm.weight"]) for one in stream]
        queries, keys, values = ([one.view(3, A, E)[part] for one in packed] for part in range(3))
        if model.arguments["query_key_norm"]:
            queries, keys = (
                [torch.stack([norm(head, ones) for head in one]) for one in side] for side in (queries, keys)
            )
        if "value_factors" in own:
            kept, mixed = own["value_factors"]
            added = [(own["value_projection.weight"] @ start).view(A, E) for start in starts]
            values = [kept * one + mixed * other for one, other in zip(values, added, strict=True)]
        after = []
        for here, features in enumerate(stream):
            seen = range(max(0, here - model.context_length + 1), here + 1)
            heads = []
            for head in range(A):
                query = rotated(queries[here][head], here)
                scores = [query @ rotated(keys[there][head], there) / math.sqrt(E) for there in seen]
                shares = torch.softmax(torch.stack(scores), 0)
                heads.append(sum((share * values[there][head] for share, there in zip(shares, seen, strict=True))))
            features = features + own["attention_out.weight"] @ torch.cat(heads)
            inner = own["feed_forward_in.weight"] @ norm(features, own["feed_forward_norm.weight"])
            if activation == "swiglu":
                gate, inner = inner.chunk(2)
                inner = gate * torch.sigmoid(gate) * inner
            elif activation == "squared_relu":
                inner = inner.clamp(min=0) ** 2
            else:
                inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
            after.append(features + own["feed_forward_out.weight"] @ inner)
        stream = after
    logits = [weights["output.weight"] @ norm(one, weights["norm.weight"]) + weights["output.bias"] for one in stream]
    return torch.log_softmax(torch.stack(logits), -1)


OPTIONS = ("query_key_norm", "value_embeddings", "embedding_skip")


@pytest.mark.parametrize(
    ("activation", "options"),
    [*[(activation, ()) for activation in ACTIVATIONS], *[("swiglu", (name,)) for name in OPTIONS], ("gelu", OPTIONS)],
)
@pytest.mark.parametrize("context_length", [1, 2, 5, 12, 40])
def test_attention_sees_the_window_and_nothing_else(
    activation: str, options: tuple[str, ...], context_length: int, build_model: ModelBuilder
) -> None:
    on: dict[str, Any] = dict.fromkeys(options, True)
    model = build_model("transformer", V, activation=activation, context_length=context_length, tied=True, **on)
    assert isinstance(model, Transformer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    tokens = torch.randint(V, (12,), generator=torch.Generator().manual_seed(2)).tolist()
    expected = reference(model, tokens, activation)
    with torch.no_grad():
        whole = torch.log_softmax(model(torch.tensor([tokens]), model.initial_state(1))[0], -1)[0]
        torch.testing.assert_close(whole.double(), expected, atol=5e-5, rtol=0)
        # The same by the cache, a token at a time.
        state = model.initial_state(1)
        for index, token in enumerate(tokens):
            logits, state = model(torch.tensor([[token]]), state)
            assert state[0].shape == (2, 1, A, min(index + 1, context_length - 1), E)
            torch.testing.assert_close(torch.log_softmax(logits, -1)[0, 0].double(), expected[index], atol=5e-5, rtol=0)
    # And in float64 to the last digits: nothing in between falls back to float32.
    double = model.double()
    with torch.no_grad():
        exact = torch.log_softmax(double(torch.tensor([tokens]), double.initial_state(1))[0], -1)[0]
    torch.testing.assert_close(exact, expected, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("option", [*OPTIONS, "activation"])
def test_each_option_is_scripted_and_has_no_stock_form(option: str, build_model: ModelBuilder) -> None:
    value: Any = "squared_relu" if option == "activation" else True
    model = build_model("transformer", V, output="full", **({"output_bias": False} | {option: value}))
    tokens = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(1))
    scripted = torch.jit.script(model)
    with torch.no_grad():
        torch.testing.assert_close(scripted(tokens, model.initial_state(2)), model(tokens, model.initial_state(2)))
    with pytest.raises(LinguistError, match=rf"model\.{option}=(true|squared_relu): Llama and Mistral have no such"):
        model.stock_architecture()


def test_options_that_are_off_draw_nothing(build_model: ModelBuilder) -> None:
    plain = build_model("transformer", V).state_dict()
    skipping = build_model("transformer", V, embedding_skip=True)
    for name, weight in skipping.state_dict().items():
        assert name.endswith("stream_factors") or torch.equal(weight, plain[name])
    assert sum("stream_factors" in name for name, _ in skipping.named_parameters()) == 2
    assert not any("factors" in name for name in plain)


def test_the_backward_passes_are_those_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 4, E, generator=generator, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(4, E // 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda given: rotate(given, angles.cos(), angles.sin()), features)
    layer = RootMeanSquareNorm(E, eps=1e-6).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(E, generator=generator))
    assert torch.autograd.gradcheck(
        lambda given, weight: torch.func.functional_call(layer, {"weight": weight}, given), (features, layer.weight)
    )
    torch.testing.assert_close(layer(features), F.rms_norm(features, (E,), layer.weight, 1e-6))


def test_shared_keys_and_values_equal_repeated_ones(build_model: ModelBuilder) -> None:
    shared = build_model("transformer", V, num_key_value_heads=1, rotary_base=500.0, norm_epsilon=1e-5)
    full = build_model("transformer", V, rotary_base=500.0, norm_epsilon=1e-5)
    weights = shared.state_dict()
    for name, weight in weights.items():
        if name.endswith("query_key_value.weight"):
            query, key, value = weight.split([D, E, E])
            weights[name] = torch.cat([query, *[key] * A, *[value] * A])
    full.load_state_dict(weights)
    tokens = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, state = shared(tokens, shared.initial_state(2))
        torch.testing.assert_close(logits, full(tokens, full.initial_state(2))[0])
        stepped = shared(tokens[:, :1], state)[0]
        torch.testing.assert_close(stepped, full(tokens[:, :1], full(tokens, full.initial_state(2))[1])[0])
    assert state[0].shape == (2, 2, 1, 7, E)
    torch.testing.assert_close(shared.attention_weights(tokens[0, :8]), full.attention_weights(tokens[0, :8]))


def test_wrong_head_groups_are_named(build_model: ModelBuilder) -> None:
    with pytest.raises(LinguistError, match=r"model\.num_key_value_heads=3: must divide model\.num_heads=2"):
        build_model("transformer", V, num_key_value_heads=3)
    with pytest.raises(LinguistError, match=r"model\.rotary_base=0"):
        build_model("transformer", V, rotary_base=0)


def test_rotary_products_depend_on_the_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, 1, E, generator=generator, dtype=torch.float64) for _ in range(2))
    exponents = torch.arange(0, E, 2, dtype=torch.float64) / E

    def at(features: Tensor, position: int) -> Tensor:
        angles = position * 10000.0**-exponents
        return rotate(features, torch.cos(angles)[None], torch.sin(angles)[None])

    product = [float((at(query, 3 + shift) * at(key, shift)).sum()) for shift in (0, 1, 17, 400)]
    assert product == pytest.approx([product[0]] * 4, abs=1e-12)
    assert abs(product[0] - float((at(query, 4) * at(key, 0)).sum())) > 1e-3
    torch.testing.assert_close(at(query, 9).norm(), query.norm(), atol=1e-12, rtol=0)


def test_norms_scale_to_unit_mean_square(build_model: ModelBuilder) -> None:
    model = build_model("transformer", V)
    assert isinstance(model, Transformer)
    hidden = model.encode(model.embedding(torch.arange(10)[None]), model.initial_state(1))[0]
    torch.testing.assert_close(hidden.square().mean(-1), torch.ones(1, 10), atol=1e-3, rtol=0)


def test_long_reading_keeps_the_cache_short(build_model: ModelBuilder) -> None:
    model = build_model("transformer", V, context_length=8)
    state = model.initial_state(3)
    with torch.no_grad():
        for length in (5, 5, 100, 1):
            state = model(torch.zeros(3, length, dtype=torch.int64), state)[1]
            assert state[0].shape[3] <= 7
    assert state[0].shape == state[1].shape == (2, 3, A, 7, E)


def test_default_feed_forward_sizes_cost_the_same() -> None:
    sizes = {name: Transformer(V, 96, 1, activation=name).num_parameters() for name in ACTIVATIONS}
    assert len(set(sizes.values())) == 1, sizes


@pytest.mark.parametrize("count", [1, 3, 8, 20])
@pytest.mark.parametrize("context_length", [1, 5, 8, 40])
@pytest.mark.parametrize("read_before", [0, 6])
def test_the_last_hidden_vectors_are_those_of_all(
    count: int, context_length: int, read_before: int, build_model: ModelBuilder
) -> None:
    """Nor does the state that is left differ: whoever reads on finds every key and value."""
    model = build_model("transformer", V, context_length=context_length)
    assert isinstance(model, Transformer)
    before, tokens = (torch.randint(V, (2, size), generator=torch.Generator().manual_seed(3)) for size in (6, 8))
    with torch.no_grad():
        _, state = model.hidden(before[:, :read_before], model.initial_state(2))
        hidden, after = model.hidden(tokens, state)
        last, after_last = model.last_hidden(tokens, state, count)
    assert last.shape[1] == min(count, 8)
    torch.testing.assert_close(last, hidden[:, -count:], atol=1e-5, rtol=0)
    for one, other in zip(after_last, after, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "gelu", "num_key_value_heads": 1},
        {"activation": "squared_relu", "query_key_norm": True, "value_embeddings": True, "embedding_skip": True},
    ],
    ids=["default", "shared heads", "all options"],
)
def test_windows_train_in_bfloat16_as_precisely_as_under_autocast(
    options: dict[str, Any], build_model: ModelBuilder
) -> None:
    model = build_model("transformer", V, embedding_dim=64, num_heads=4, context_length=24, **options).train()
    generator = torch.Generator().manual_seed(2)
    tokens, targets = torch.randint(V, (2, 6, 24), generator=generator)

    def gradients(nll: Callable[[], Tensor], enabled: bool) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = nll().mean()
        names, weights = zip(*model.named_parameters(), strict=True)
        return {"loss": loss.detach()} | dict(zip(names, torch.autograd.grad(loss, weights), strict=True))

    def errors(found: dict[str, Tensor]) -> Tensor:
        return torch.stack([(found[name] - exact[name]).norm() / exact[name].norm() for name in exact])

    def whole() -> Tensor:
        return model.nll(tokens, targets, model.initial_state(6))[0]

    exact = gradients(whole, enabled=False)
    window = gradients(lambda: model.window_nll(tokens, targets), enabled=True)
    assert window["loss"].item() == pytest.approx(exact["loss"].item(), rel=2e-3)
    assert errors(window).mean() < 1.2 * errors(gradients(whole, enabled=True)).mean() < 0.03


def test_windows_longer_than_the_context_train_like_any_text(build_model: ModelBuilder) -> None:
    model = build_model("transformer", V, context_length=4).train()
    tokens = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", torch.bfloat16):
        expected = model.nll(tokens[:, :-1], tokens[:, 1:], model.initial_state(2))[0]
        assert torch.equal(model.window_nll(tokens[:, :-1], tokens[:, 1:]), expected)
