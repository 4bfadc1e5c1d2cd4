"""oslo.messaging as a peer to measure against, as it is or with Trove's serializer.

    oslo.py serve URL MODE TOPIC
    oslo.py load URL MODE TOPIC SECONDS THREADS BYTES

MODE is `plain` (JsonPayloadSerializer) or `trove` (Trove's SecureSerializer, with a key). A server says READY. The
load calls `echo` from so many threads of one process, a second to warm up and then for SECONDS, and prints what
came of it as one line of JSON. Each call has BYTES of text both ways, and a request context as Trove's API sends one.
"""

import json
import os
import sys
import threading
import time

os.environ["NO_EVENTLET_MONKEYPATCH"] = "1"
WHAT, URL, MODE, TOPIC = sys.argv[1:5]
KEY = "0123456789abcdef0123456789ABCDEF"

if MODE == "trove":
    # Registers Trove's options before they are parsed.
    from trove.common import cfg as _cfg  # noqa: F401
    from trove.common.context import TroveContext
    from trove.common.rpc import secure_serializer, serializer

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402


def made():
    """The transport, the serializer and the context of one process."""
    cfg.CONF([], project="peers", default_config_files=[])
    oslo_messaging.set_transport_defaults("peers")
    carrier = oslo_messaging.get_rpc_transport(cfg.CONF, URL)
    plain = oslo_messaging.JsonPayloadSerializer()
    who = {"user_id": "0b3d" * 8, "project_id": "56cc" * 8, "roles": ["member", "reader"]}
    if MODE == "plain":
        return carrier, plain, {**who, "auth_token": "g" * 183, "request_id": "req-" + "0" * 36}
    inner = serializer.TroveRequestContextSerializer(plain)
    context = TroveContext(**who, auth_token="g" * 183, request_id="req-" + "0" * 36)
    return carrier, secure_serializer.SecureSerializer(inner, KEY), context


class Endpoint:
    def echo(self, ctxt, value):
        return value


def serve():
    carrier, given, _ = made()
    target = oslo_messaging.Target(topic=TOPIC, server="one")
    server = oslo_messaging.get_rpc_server(
        carrier, target, [Endpoint()], executor="threading", serializer=given
    )
    server.start()
    print("READY", flush=True)
    threading.Event().wait()


def load(seconds, threads, size):
    carrier, given, context = made()
    make = getattr(oslo_messaging, "get_rpc_client", None) or oslo_messaging.RPCClient
    client = make(carrier, oslo_messaging.Target(topic=TOPIC), serializer=given, timeout=60)
    value = "v" * size

    def calls(until, took):
        while (begun := time.perf_counter()) < until:
            if client.call(context, "echo", value=value) != value:
                raise AssertionError("another echo")
            took.append(time.perf_counter() - begun)

    def run(for_seconds):
        took, begun = [], time.perf_counter()
        each = [threading.Thread(target=calls, args=(begun + for_seconds, took)) for _ in range(threads)]
        for thread in each:
            thread.start()
        for thread in each:
            thread.join()
        return sorted(took), time.perf_counter() - begun

    run(1)
    cpu = time.process_time()
    took, lasted = run(seconds)
    cpu = time.process_time() - cpu
    at = lambda share: took[int((len(took) - 1) * share)] * 1e3  # noqa: E731
    figures = {"calls": len(took), "per_s": len(took) / lasted, "p50_ms": at(0.5), "p99_ms": at(0.99), "cpu_s": cpu}
    print(json.dumps(figures), flush=True)
    # Threads of the driver would keep the process.
    os._exit(0)


if WHAT == "serve":
    serve()
else:
    load(float(sys.argv[5]), int(sys.argv[6]), int(sys.argv[7]))
