"""Counts for Prometheus. Called by app.py."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from dpo_driver.serve.health import Standing

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """One set of counts for one server."""

    def __init__(self) -> None:
        self._all = CollectorRegistry()
        self.requests = Counter(
            "dpo_driver_requests", "Chat requests", ("version", "arm", "status"), registry=self._all
        )
        self.tokens = Counter("dpo_driver_tokens", "Tokens", ("version", "kind"), registry=self._all)
        self.seconds = Histogram(
            "dpo_driver_seconds", "Seconds to the whole answer", ("version",), buckets=_SECONDS, registry=self._all
        )
        self.rows = Histogram("dpo_driver_batch_rows", "Rows decoded together", buckets=_ROWS, registry=self._all)
        self.feedback = Counter("dpo_driver_feedback", "Outcomes", ("version", "success"), registry=self._all)
        self.fallbacks = Counter("dpo_driver_fallbacks", "Versions that tripped", ("version",), registry=self._all)
        self.shadows = Counter("dpo_driver_shadows", "Shadow answers", ("version", "same"), registry=self._all)
        self._inside = Gauge("dpo_driver_inside", "Requests under way", registry=self._all)
        self._waiting = Gauge("dpo_driver_waiting", "Rows that wait", registry=self._all)
        self._success = Gauge(
            "dpo_driver_success", "Share of successes in the window", ("version",), registry=self._all
        )

    def page(self, inside: int, waiting: int, standings: Mapping[str, Standing]) -> bytes:
        """What Prometheus reads."""
        self._inside.set(inside)
        self._waiting.set(waiting)
        for version, standing in standings.items():
            if standing.success.success is not None:
                self._success.labels(version).set(standing.success.success)
        return generate_latest(self._all)
