"""Generate text with an exported model; needs only torch.

python generate_from_export.py outputs/my-run/model.jit "The congress" --max-tokens 40 --temperature 0.8 --top-p 0.9
"""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="file written by tl-export --jit")
    parser.add_argument("prompt", nargs="?", default="", help="text to continue")
    parser.add_argument("--max-tokens", type=int, default=50)
    parser.add_argument("--temperature", type=float, default=1.0, help="0 always takes the most probable token")
    parser.add_argument("--top-k", type=int, default=0, help="0 for all")
    parser.add_argument("--top-p", type=float, default=1.0, help="1 for all")
    parser.add_argument("--seed", type=int, default=-1, help="random seed; negative for a new one each time")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="`torch.jit")
    extra: dict[str, Any] = {"settings.json": ""}
    model = torch.jit.load(arguments.model, map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
    settings = json.loads(extra["settings.json"])
    print(f"{settings.get('model')} trained on {settings.get('data')}, {settings['vocab_size']:,} types")
    print(
        model.generate(
            arguments.prompt,
            arguments.max_tokens,
            arguments.temperature,
            arguments.top_k,
            arguments.top_p,
            arguments.seed,
        )
    )


if __name__ == "__main__":
    main()
