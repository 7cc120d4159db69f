"""`tl-serve`: completions over HTTP as OpenAI's clients speak it, and a page."""

import os
import sys
from collections.abc import Sequence

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command, say
from torch_linguist.cli.run_arguments import add_runs, find_runs
from torch_linguist.errors import LinguistError

TOKEN_VARIABLE = "TL_SERVE_TOKEN"

EXAMPLES = f"""\
examples:
  tl-serve                                   the newest run under outputs/; a page at http://127.0.0.1:8000/
  tl-serve lstm ngram --weights 0.7 0.3      two models and their mixture, the model "mixture"
  tl-serve lstm --host 0.0.0.0 --token secret
  curl http://127.0.0.1:8000/v1/completions -H "Content-Type: application/json" -d '{{"prompt": "The people"}}'

Paths: POST /v1/completions, GET /v1/models, /health, /metrics (Prometheus) and / (the page). SIGTERM or Ctrl-C finishes
the requests at work and refuses the rest. The token may also stand in the variable {TOKEN_VARIABLE}.
Needs pip install "torch-linguist[serve]".

exit codes: 0 stopped; 1 failed; 2 wrong usage"""

LIMITS = {
    "max_body_bytes": ("body_bytes", int, 1 << 20, "largest request body"),
    "body_seconds": ("body_seconds", float, 10.0, "time to send a request"),
    "max_tokens": ("tokens", int, 4096, "prompt and continuation of one completion together"),
    "max_choices": ("choices", int, 128, "completions per request"),
    "max_requests": ("requests", int, 64, "requests at work or waiting"),
    "seconds": ("seconds", float, 120.0, "time for an answer"),
    "rows": ("rows", int, 16, "completions that are computed side by side"),
    "cache_mib": ("cache_mib", int, 256, "memory for the states of prefixes"),
}
"""For each option: the limit, its type, its default and its help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tl-serve`.

    Args:
        argv: command-line arguments; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command(_serve, argv)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-serve", "Serves the best models of runs over HTTP.", EXAMPLES)
    add_runs(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 for any free one (8000)")
    parser.add_argument("--token", metavar="TEXT", help="secret that clients must send as a bearer token")
    parser.add_argument(
        "--weights", nargs="+", type=float, metavar="X", help="also serve the mixture of the runs with these weights"
    )
    parser.add_argument("--prompt", default="", metavar="TEXT", help="text that the page begins with")
    limits = parser.add_argument_group("limits")
    for option, (_, kind, default, text) in LIMITS.items():
        limits.add_argument(
            f"--{option.replace('_', '-')}", type=kind, default=default, metavar="N", help=f"{text} ({default:,})"
        )
    return parser


def _serve(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    token = arguments.token if arguments.token is not None else os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        parser.error("--token: must be ASCII without blanks, and not empty")
    if not 0 <= arguments.port < 65536:
        parser.error(f"--port={arguments.port}: must be between 0 and 65535")
    if arguments.weights is not None and len(arguments.weights) != max(len(arguments.runs), 1):
        parser.error(f"--weights: {len(arguments.weights)} weights for {max(len(arguments.runs), 1)} runs")
    folders = find_runs(arguments)

    try:
        from torch_linguist.serve.server import serve
    except ModuleNotFoundError as error:
        raise LinguistError(
            f'tl-serve: needs the package {error.name}; run pip install "torch-linguist[serve]"'
        ) from error
    from torch_linguist.checkpoint import load_run
    from torch_linguist.serve import Limits, served_models

    limits = Limits(**{field: getattr(arguments, option) for option, (field, *_) in LIMITS.items()})
    models = served_models([load_run(folder) for folder in folders], arguments.weights)
    names = ", ".join(model.name for model in models)
    serve(
        models,
        host=arguments.host,
        port=arguments.port,
        token=token,
        prompt=arguments.prompt,
        limits=limits,
        listening=lambda url: say(f"{url} serves {names}; Ctrl-C stops"),
    )
    say("stopped")
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
