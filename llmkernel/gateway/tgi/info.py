"""/info."""

from __future__ import annotations

from llmkernel._version import __version__
from llmkernel.gateway.exchange import Exchange
from llmkernel.gateway.tgi.schemas import Info
from llmkernel.gateway.tgi.validation import Bounds

VALIDATION_WORKERS = 2
"""What clients are told; prompts are tokenised by the worker's own threads."""


async def info(exchange: Exchange) -> None:
    """The first model and the limits in front of it; `?model=` names another."""
    limits = exchange.gateway.settings.limits
    async with exchange.lease(exchange.query("model")) as replica:
        bounds = Bounds.of(limits, replica.info)
        exchange.answer(
            Info(
                model_id=replica.model,
                model_sha=replica.info.revision,
                model_pipeline_tag="text-generation",
                max_concurrent_requests=limits.max_concurrent_requests,
                max_best_of=limits.max_best_of,
                max_stop_sequences=limits.max_stop_sequences,
                max_input_tokens=bounds.input_tokens,
                max_total_tokens=bounds.total_tokens,
                validation_workers=VALIDATION_WORKERS,
                max_client_batch_size=limits.max_client_batch_size,
                router="text-generation-router",
                version=__version__,
                sha=None,
                docker_label=None,
            )
        )
