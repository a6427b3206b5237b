"""`Metrics`: the counters of a server, in Prometheus' text format at `/metrics`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from ostinato_learn.serve.models import Models

# Bounds of the histogram in seconds: from one step of a small model to a batch of long sequences.
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_FRAMES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """The counters of one server; two servers in one process have separate ones."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "ostinato_requests",
            "Requests by route and status.",
            ("route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ostinato_request_seconds",
            "From a request to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._steps = Counter(
            "ostinato_steps", "Steps of sequences.", ("model",), registry=self.registry
        )
        self._together = Histogram(
            "ostinato_played_together",
            "Requests that were played together.",
            ("model",),
            buckets=_FRAMES,
            registry=self.registry,
        )
        self.expired = Counter(
            "ostinato_expired", "Sequences ended by --idle.", ("model",), registry=self.registry
        )
        self.restarted = Counter(
            "ostinato_restarted",
            "Open sequences that sequence_start began again.",
            ("model",),
            registry=self.registry,
        )
        self._open = Gauge(
            "ostinato_open_sequences",
            "Sequences that are open.",
            ("model",),
            registry=self.registry,
        )
        self._waiting = Gauge(
            "ostinato_waiting", "Steps that wait, in requests.", ("model",), registry=self.registry
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        key = (route, status)
        if key not in self._children:  # a look-up of labels takes longer than counting
            requests, of = self._requests.labels(route, str(status)), self._seconds.labels(route)
            self._children[key] = (requests, of)
        counter, histogram = self._children[key]
        counter.inc()
        histogram.observe(seconds)

    def played(self, model: str, frames: int, steps: int) -> None:
        """Count frames that the engine played together, and their steps."""
        self._steps.labels(model).inc(steps)
        self._together.labels(model).observe(frames)

    def text(self, models: Models) -> bytes:
        """All counters in the text format of Prometheus."""
        for name in models.names:
            every = [sequences for of, _, sequences in models.sequences if of == name]
            self._open.labels(name).set(sum(map(len, every)))
            self._waiting.labels(name).set(sum(each.waiting for each in every))
        return generate_latest(self.registry)
