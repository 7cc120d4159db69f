"""Metrics: every line is one that Prometheus reads, and buckets add up."""

import re

from torch_linguist.serve.server_metrics import Metrics

LINE = re.compile(r"(# (HELP|TYPE) \w+ .+|\w+(\{\w+=\"[^\"]+\"\})? [-+\d.e]+)")


def test_responses_are_counted_by_status_and_time() -> None:
    metrics = Metrics()
    for status, seconds in ((200, 0.02), (200, 5.0), (400, 0.001)):
        metrics.responded(status, seconds)
    text = metrics.text({"open": ("open requests", 2)})
    assert all(LINE.fullmatch(line) for line in text.splitlines())
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['torch_linguist_requests_total{status="200"}'] == "2"
    assert values['torch_linguist_request_seconds_bucket{le="0.03"}'] == "2"
    assert values['torch_linguist_request_seconds_bucket{le="+Inf"}'] == "3"
    assert values["torch_linguist_open"] == "2"
    assert float(values["torch_linguist_request_seconds_sum"]) == 5.021
