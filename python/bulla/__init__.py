"""Sealed remote procedure calls over message brokers that nobody has to trust.

For services on asyncio: :mod:`bulla.aio`. For services on oslo.messaging, nothing but settings:
:mod:`bulla.oslo`. What both are made of is here.
"""

from bulla._bulla import (
    Answer,
    Call,
    Errand,
    Error,
    Job,
    KeyFile,
    Peer,
    Place,
    Refused,
    Remote,
    Sealed,
    Target,
    Timeout,
    Unreachable,
    Usage,
    __version__,
)

__all__ = [
    "Answer",
    "Call",
    "Errand",
    "Error",
    "Job",
    "KeyFile",
    "Peer",
    "Place",
    "Refused",
    "Remote",
    "Sealed",
    "Target",
    "Timeout",
    "Unreachable",
    "Usage",
    "__version__",
]
