"""Who still sends in clear: counted while the settings allow it, and written beside the key file."""

import contextlib
import json
import logging
import os
import re
import threading
import time

LOG = logging.getLogger(__name__)

# Rows at the most: who sends in clear can invent names.
MOST = 512
# How often it is written at the most, and a row is logged, in seconds.
EVERY = 30
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class Census:
    """Counts by queue, sender as far as it says, and method."""

    def __init__(self, key_file):
        self.path = f"{key_file}.clear.json"
        self._rows, self._lock = {}, threading.Lock()
        self._written, self._logged = 0.0, {}
        self._later = None

    def note(self, topic, message):
        """Counts a message that came in clear through `topic`."""
        who, method = _who(message), _method(message)
        now = time.time()
        with self._lock:
            key = (topic, who, method)
            if key not in self._rows and len(self._rows) >= MOST:
                key = (topic, "*", "*")
            row = self._rows.setdefault(key, {"count": 0, "first": int(now)})
            row["count"] += 1
            row["last"] = int(now)
            tell = now - self._logged.get(key, 0.0) >= EVERY
            if tell:
                self._logged[key] = now
            wait = self._written + EVERY - now
            due = wait <= 0
            if not due and self._later is None:
                # What comes last is written, too.
                self._later = threading.Timer(wait, self.write)
                self._later.daemon = True
                self._later.start()
        if tell:
            LOG.warning(
                "A message that is not sealed was taken, as the settings allow: %s from %s on %s "
                "(%d so far)",
                *(key[2], key[1], key[0]),
                row["count"],
            )
        if due:
            self.write()

    def rows(self):
        """All rows, the most frequent first."""
        with self._lock:
            rows = [
                {"topic": topic, "from": who, "method": method, **row}
                for (topic, who, method), row in self._rows.items()
            ]
        return sorted(rows, key=lambda row: -row["count"])

    def write(self):
        """Writes the rows beside the key file, if there are any."""
        with self._lock:
            later, self._later = self._later, None
        if later is not None:
            later.cancel()
        rows = self.rows()
        if not rows:
            return
        self._written = time.time()
        beside = f"{self.path}.{os.getpid()}"
        try:
            with open(beside, "w", opener=_private) as file:
                json.dump({"in_clear": rows}, file, indent=1)
            os.replace(beside, self.path)
        except OSError as error:
            LOG.warning("The census of what came in clear can't be written: %s", error)
            with contextlib.suppress(OSError):
                os.unlink(beside)


def _private(path, flags):
    return os.open(path, flags, 0o600)


def _who(message):
    """Nothing proves it. A caller's reply queue tells its process apart, a notification its publisher."""
    for name in ("publisher_id", "_reply_q", "_context_user_id", "_context_user"):
        value = message.get(name)
        if isinstance(value, str) and _NAME.fullmatch(value.replace(":", ".")):
            return value
    return "unknown"


def _method(message):
    method = message.get("method") or message.get("event_type")
    if not (isinstance(method, str) and _NAME.fullmatch(method)):
        return "*"
    space = message.get("namespace")
    return f"{space}.{method}" if isinstance(space, str) and _NAME.fullmatch(space) else method
