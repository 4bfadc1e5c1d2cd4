"""Exceptions on their way through the seal, and what Bulla refuses, as oslo.messaging's exceptions."""

import json

import oslo_messaging
from oslo_messaging._drivers import common

import bulla


class SealError(oslo_messaging.MessagingException):
    """A message could not be sealed, opened, or let through."""


class NotPermitted(oslo_messaging.RemoteError):
    """The receiver's policy does not let this caller do that."""


class OutcomeUnknown(oslo_messaging.RemoteError):
    """The method may or may not have run."""


_OWN = {"NotPermitted": NotPermitted, "OutcomeUnknown": OutcomeUnknown}


def describe(failure, tell_traceback):
    """What goes into the seal of an exception, as a job takes it: kind, message, details, trace."""
    data = json.loads(common.serialize_remote_exception(failure))
    details = {
        "module": data["module"],
        "message": data["message"],
        "args": data["args"],
        "kwargs": data["kwargs"],
    }
    trace = "".join(data["tb"]) if tell_traceback else None
    return data["class"], data["message"], details, trace or None


def rebuild(error, allowed_remote_exmods):
    """The exception that oslo.messaging would raise for a sealed error."""
    details = error.details
    if not isinstance(details, dict) or not isinstance(details.get("module"), str):
        # One of Bulla's own, or of a peer that has no exceptions.
        kind = _OWN.get(error.kind, oslo_messaging.RemoteError)
        return kind(error.kind, error.message, (error.trace or "").splitlines())
    data = {
        "class": error.kind,
        "module": details["module"],
        "message": error.message,
        "tb": (error.trace or "").splitlines(),
        "args": details.get("args") or [],
        "kwargs": details.get("kwargs") or {},
    }
    return common.deserialize_remote_exception(json.dumps(data), allowed_remote_exmods)


def local(error, allowed_remote_exmods):
    """oslo.messaging's exception for one of Bulla's."""
    if isinstance(error, bulla.Remote):
        return rebuild(error, allowed_remote_exmods)
    if isinstance(error, bulla.Timeout):
        return oslo_messaging.MessagingTimeout(str(error))
    if isinstance(error, bulla.Unreachable):
        return oslo_messaging.MessageDeliveryFailure(str(error))
    return SealError(str(error))
