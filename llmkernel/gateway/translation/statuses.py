"""HTTP statuses as clients of the big APIs know them."""

from __future__ import annotations

from llmkernel.gateway.faults import Failure

_KNOWN = {
    422: 400,  # what is wrong with a request
    408: 500,  # clients would take it for a time-out of their own and send the request again
    424: 500,
    426: 502,  # between the gateway and a worker: no client can mend it
    499: 500,
    507: 503,
}


def status_of(failure: Failure) -> int:
    """The status of a failure for clients that have no class for ours."""
    return _KNOWN.get(failure.status, failure.status)
