"""The figures of a server, for Prometheus.

In: each request as it ends, the load as it is when somebody asks. Out: text in Prometheus's format.
Not here: the figures of an ingest (cli/texts/metrics.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embedcli.serving.waiting import Load

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STATES = ("loading", "ready", "restarting", "failed")


class Figures:
    """`note` each request; `text` is the answer to Prometheus."""

    def __init__(self, load: Callable[[], Load]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Loads(load))
        self._requests = Counter(
            "embedcli_requests", "Requests that were answered.", ("endpoint", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "embedcli_request_seconds", "How long a request took.", ("endpoint",), buckets=SECONDS,
            registry=self._registry,
        )  # fmt: skip

    def note(self, endpoint: str, status: int, seconds: float) -> None:
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Loads(Collector):
    def __init__(self, load: Callable[[], Load]) -> None:
        self._load = load

    def collect(self) -> Iterator[Metric]:
        load = self._load()
        state = GaugeMetricFamily("embedcli_engine", "1 for the state that the engine is in.", labels=["state"])
        for name in STATES:
            state.add_metric([name], float(load.state == name))
        yield state
        yield GaugeMetricFamily("embedcli_waiting_requests", "Requests without an answer yet.", load.requests)
        yield GaugeMetricFamily("embedcli_waiting_tokens", "Tokens of these requests.", load.tokens)
        yield CounterMetricFamily("embedcli_tokens", "Tokens that were embedded.", load.tokens_done)
        yield CounterMetricFamily("embedcli_texts", "Texts that were embedded.", load.texts_done)
        yield CounterMetricFamily("embedcli_engine_restarts", "How often the engine was started again.", load.restarts)
