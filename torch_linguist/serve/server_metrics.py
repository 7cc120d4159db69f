"""Counters in Prometheus' text format."""

from collections import Counter
from collections.abc import Mapping

BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Upper bounds of the histogram of response times, in seconds."""

PREFIX = "torch_linguist_"


class Metrics:
    """What the server has done since its start.

    Attributes:
        responses: number of responses by status code.
        prompt_tokens: prompt tokens of accepted requests.
        reused_tokens: prompt tokens whose state was kept from an earlier request.
        completion_tokens: generated tokens.
    """

    def __init__(self) -> None:
        self.responses: Counter[int] = Counter()
        self.prompt_tokens = self.reused_tokens = self.completion_tokens = 0
        self._seconds: Counter[float] = Counter()
        self._total_seconds = 0.0

    def responded(self, status: int, seconds: float) -> None:
        """Count a response."""
        self.responses[status] += 1
        self._total_seconds += seconds
        for bound in BUCKETS:
            self._seconds[bound] += seconds <= bound

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return all metrics.

        Args:
            gauges: description and value of each metric that goes up and down.
        """
        count = self.responses.total()
        lines = _head("requests_total", "counter", "responses by status code")
        lines += [
            f'{PREFIX}requests_total{{status="{code}"}} {self.responses[code]}' for code in sorted(self.responses)
        ]
        for name, description in (
            ("prompt_tokens", "prompt tokens of accepted requests"),
            ("reused_tokens", "prompt tokens whose state was kept from an earlier request"),
            ("completion_tokens", "generated tokens"),
        ):
            lines += [*_head(f"{name}_total", "counter", description), f"{PREFIX}{name}_total {getattr(self, name)}"]
        for name, (description, value) in gauges.items():
            lines += [*_head(name, "gauge", description), f"{PREFIX}{name} {value:g}"]
        lines += _head("request_seconds", "histogram", "time until a response is complete")
        lines += [f'{PREFIX}request_seconds_bucket{{le="{bound:g}"}} {self._seconds[bound]}' for bound in BUCKETS]
        lines += [f'{PREFIX}request_seconds_bucket{{le="+Inf"}} {count}']
        lines += [f"{PREFIX}request_seconds_sum {self._total_seconds:.6f}", f"{PREFIX}request_seconds_count {count}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, description: str) -> list[str]:
    return [f"# HELP {PREFIX}{name} {description}", f"# TYPE {PREFIX}{name} {kind}"]
