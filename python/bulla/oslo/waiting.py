"""Waiting without blocking: a thread sleeps without the interpreter's lock, a green thread lets the
others run."""

import sys
import time


class _Expired(Exception):
    pass


def is_green():
    """Whether this process's threads are eventlet's."""
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and patcher.is_monkey_patched("thread")


def until(done, wait, fileno, timeout=None):
    """Whether `done()` became true within `timeout` seconds."""
    if done():
        return True
    if not is_green():
        return wait(timeout)
    return _readable(fileno(), timeout) and done()


def following(take, fileno, timeout=None):
    """The next thing that `take(seconds)` gives within `timeout`, or None."""
    if not is_green():
        return take(timeout)
    thing = take(0.0)
    if thing is None and _readable(fileno(), timeout):
        thing = take(0.0)
    return thing


def _readable(fd, timeout):
    from eventlet import hubs

    try:
        hubs.trampoline(fd, read=True, timeout=timeout, timeout_exc=_Expired)
    except _Expired:
        return False
    return True


def pause(seconds=0.01):
    """Lets others run for a moment."""
    time.sleep(seconds)
