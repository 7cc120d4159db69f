"""Generation speed with the carried state, compared with running the whole prefix again for every token.

    python scripts/bench_generation.py [RUN ...] [--length 512] [--json FILE]

Without RUN, the models are untrained, with the sizes of the configurations and a vocabulary of 33,278 types. The prefix
is run again at the last length, through the model's `forward` (all logits) and, for a fair comparison, with the logits
of the last token only. The script checks that all variants choose the same token.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from torch_linguist.checkpoint.loaded_run import load_run
from torch_linguist.generation import Sampling, generation_steps
from torch_linguist.model import GRU, LSTM, RNN, LanguageModel, Transformer

VOCABULARY = 33278


def models(runs: list[Path], context_length: int) -> Iterator[tuple[str, LanguageModel]]:
    for folder in runs:
        yield folder.name, load_run(folder).model
    if not runs:
        torch.manual_seed(0)
        for family in (RNN, LSTM, GRU):
            yield family.__name__.lower(), family(VOCABULARY).eval()
        yield "transformer", Transformer(VOCABULARY, context_length=context_length).eval()


def carried(model: LanguageModel, length: int) -> tuple[list[float], list[int]]:
    """Return the seconds of each token, and the tokens."""
    seconds, tokens = [], []
    begin = time.perf_counter()
    for step in islice(generation_steps(model, [0], Sampling(greedy=True)), length):
        tokens.append(int(step.tokens[0]))
        seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
    return seconds, tokens


@torch.inference_mode()
def rerun(model: LanguageModel, tokens: list[int], last_only: bool, repeats: int = 5) -> float:
    """Return the seconds of the last token if the whole prefix is read again."""
    prefix = torch.tensor([[0, *tokens[:-1]]])
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        if last_only:
            hidden, _ = model.hidden(prefix, model.initial_state(1))
            last = model.get_submodule("output")(hidden[:, -1:])[0, 0]
        else:
            last = model(prefix, model.initial_state(1))[0][0, -1]
        chosen = int(last.argmax())
        seconds.append(time.perf_counter() - begin)
        assert float(last[chosen] - last[tokens[-1]]) < 1e-3, "the variants differ"
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--length", type=int, default=512, help="number of tokens to generate")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results as JSON")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'model':<12}{'tokens/s':>9}{'first 64':>11}{'last 64':>11}{'prefix again':>18}{'last logits only':>20}")
    for name, model in models(arguments.runs, arguments.length):
        carried(model, 16)
        seconds, tokens = carried(model, arguments.length)
        first, last = statistics.median(seconds[1:65]), statistics.median(seconds[-64:])
        whole, fair = rerun(model, tokens, last_only=False), rerun(model, tokens, last_only=True)
        row = {
            "model": name,
            "length": arguments.length,
            "tokens_per_second": len(seconds) / sum(seconds),
            "first_ms": 1000 * first,
            "last_ms": 1000 * last,
            "prefix_ms": 1000 * whole,
            "prefix_last_logits_ms": 1000 * fair,
            "ratio": whole / last,
            "ratio_last_logits": fair / last,
        }
        rows.append(row)
        print(
            f"{name:<12}{row['tokens_per_second']:>9.1f}{1000 * first:>8.2f} ms{1000 * last:>8.2f} ms"
            f"{1000 * whole:>9.1f} ms{whole / last:>5.0f}x{1000 * fair:>11.1f} ms{fair / last:>5.1f}x"
        )
    if arguments.json:
        found = {"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
