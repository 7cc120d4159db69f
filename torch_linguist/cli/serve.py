"""`tl-serve`: completions over HTTP as OpenAI's clients speak it, and a page."""

import os
import sys
from collections.abc import Mapping, Sequence

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command, say
from torch_linguist.cli.option_types import Option, add_options
from torch_linguist.cli.run_arguments import add_runs, add_weights, check_weights, find_runs
from torch_linguist.errors import LinguistError

TOKEN_VARIABLE = "TL_SERVE_TOKEN"

EXAMPLES = f"""\
examples:
  tl-serve                                   the newest run under outputs/; a page at http://127.0.0.1:8000/
  tl-serve lstm ngram --weights 0.7 0.3      two models and their mixture, the model "mixture"
  tl-serve lstm --host 0.0.0.0 --token secret
  curl http://127.0.0.1:8000/v1/completions -H "Content-Type: application/json" -d '{{"prompt": "The people"}}'

Paths: POST /v1/completions, GET /v1/models, /health, /metrics (Prometheus) and / (the page). SIGTERM or Ctrl-C finishes
the running requests and refuses new ones. The environment variable {TOKEN_VARIABLE} may hold the token.
Needs pip install "torch-linguist[serve]".

exit codes: 0 stopped; 1 failed; 2 wrong usage"""

OPTIONS: Mapping[str, Option] = {
    "--host": (str, "127.0.0.1", "HOST", "address to listen on; the default serves this machine only"),
    "--port": (int, 8000, "N", "port to listen on; 0 for any free one"),
    "--token": (str, None, "TEXT", "secret that clients must send as a bearer token"),
    "--prompt": (str, "", "TEXT", "text at the start of the page"),
}

LIMITS: Mapping[str, Option] = {
    "--max-body-bytes": (int, 1 << 20, "N", "largest request body"),
    "--body-seconds": (float, 10.0, "N", "time to send a request"),
    "--max-tokens": (int, 4096, "N", "largest number of tokens of a prompt and its completion"),
    "--max-choices": (int, 128, "N", "completions per request"),
    "--max-requests": (int, 64, "N", "requests that run or wait"),
    "--seconds": (float, 120.0, "N", "time for an answer"),
    "--rows": (int, 16, "N", "completions computed side by side"),
    "--cache-mib": (int, 256, "N", "memory for the states of prefixes"),
}
"""The fields of `Limits` as options; `max_` is left out of the names of the fields."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tl-serve`."""
    return run_command(_serve, argv)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-serve", "Serves the best models of runs over HTTP.", EXAMPLES)
    add_runs(parser)
    add_weights(parser, "also serve the mixture of the runs with these weights")
    add_options(parser, None, OPTIONS)
    add_options(parser, "limits", LIMITS)
    return parser


def _serve(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    token = arguments.token if arguments.token is not None else os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        parser.error("--token: must be ASCII without blanks, and not empty")
    if not 0 <= arguments.port < 65536:
        parser.error(f"--port={arguments.port}: must be between 0 and 65535")
    check_weights(parser, arguments)
    folders = find_runs(arguments)

    try:
        from torch_linguist.serve.server import serve
    except ModuleNotFoundError as error:
        raise LinguistError(
            f'tl-serve: needs the package {error.name}; run pip install "torch-linguist[serve]"'
        ) from error
    from torch_linguist.checkpoint import load_run
    from torch_linguist.serve import Limits, served_models

    options = [option.removeprefix("--").replace("-", "_") for option in LIMITS]
    limits = Limits(**{option.removeprefix("max_"): getattr(arguments, option) for option in options})
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
