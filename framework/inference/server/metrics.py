"""What Prometheus is told at /metrics."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        labels = ("endpoint", "status")
        self.requests = Counter(
            "loam_requests", "Requests answered, by status; 499: hung up", labels, registry=self._registry
        )
        self.seconds = Histogram(
            "loam_request_seconds",
            "From request to the end of its answer",
            ("endpoint",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.first_token = Histogram(
            "loam_time_to_first_token_seconds", "From request to first token", buckets=_SECONDS, registry=self._registry
        )
        self.tokens = Counter(
            "loam_tokens", "Tokens read (prompt) and written (completion)", ("kind",), registry=self._registry
        )
        for name, what, value in (
            ("loam_running", "Texts that have a row", running),
            ("loam_waiting", "Texts that wait for a row", waiting),
        ):
            Gauge(name, what, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self._registry)
