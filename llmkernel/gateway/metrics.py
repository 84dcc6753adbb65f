"""Prometheus metrics under Text Generation Inference's names and our own.

prometheus_client writes the format and counts the buckets: Jupyter Server brings it
anyway, and escaping by hand is where such pages go wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest

from llmkernel.gateway.record import Record

if TYPE_CHECKING:
    from llmkernel.gateway.admission import Permits
    from llmkernel.gateway.models import Models


class Metrics:
    """All metrics of one gateway, in a registry of its own."""

    def __init__(self, models: Models, permits: Permits) -> None:  # noqa: ARG002
        self._registry = CollectorRegistry()

    def count(self, record: Record) -> None:
        """Count a request that is over."""

    def page(self) -> bytes:
        """The page that a Prometheus server reads."""
        return generate_latest(self._registry)
