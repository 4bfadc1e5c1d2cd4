"""One end of the measurement: driver_peer.py server|client KIND URL [KEY FILE] [CLAIMS].

KIND is `plain` (oslo.messaging as it is), `trove` (with Trove's serializer and a key) or `sealed` (with the
driver of the package `bulla`). A client reads lines `THREADS SECONDS BYTES` and answers each with a line of
JSON: the latency of every call, and the processor time that both ends took.
"""

import json
import logging
import os
import sys
import tempfile
import threading
import time

os.environ.setdefault("OSLO_LOCK_PATH", tempfile.gettempdir())
os.environ["NO_EVENTLET_MONKEYPATCH"] = "1"

# Queues are named by topic alone, whatever the exchange: the kinds must not share one.
TOPIC = "bench-"
# As Trove makes them: 32 characters.
SECRET = "0123456789abcdef0123456789abcdef"
CONTEXT = {
    "user": "6f1c0d54a0b64f6c8f0c1ed9f2a7b001",
    "user_id": "6f1c0d54a0b64f6c8f0c1ed9f2a7b001",
    "project_id": "a2d0b6a7c8e94f51b1f7f0d3c4e5a602",
    "tenant": "a2d0b6a7c8e94f51b1f7f0d3c4e5a602",
    "project": "a2d0b6a7c8e94f51b1f7f0d3c4e5a602",
    "system_scope": None,
    "domain": None,
    "user_domain": "default",
    "project_domain": "default",
    "is_admin": False,
    "is_admin_project": True,
    "read_only": False,
    "show_deleted": False,
    "auth_token": "gAAAAA" + "t" * 178,
    "request_id": "req-5a3b1c52-2c55-4a8b-9d0f-6a1f0f6f7a11",
    "global_request_id": None,
    "resource_uuid": None,
    "roles": ["member", "reader"],
    "user_identity": "6f1c a2d0 - default default",
    "limit": None,
    "marker": None,
    "service_catalog": None,
    "timeout": None,
    "instance_id": None,
}


class Echo:
    def echo(self, ctxt, value):
        return value

    def used(self, ctxt):
        return time.process_time()


def serializer_and_context(kind):
    import oslo_messaging

    if kind != "trove":
        return oslo_messaging.JsonPayloadSerializer(), dict(CONTEXT)
    from trove.common.context import TroveContext
    from trove.common.rpc import secure_serializer, serializer

    inner = serializer.TroveRequestContextSerializer(oslo_messaging.JsonPayloadSerializer())
    names = ("user_id", "project_id", "auth_token", "roles", "request_id")
    context = TroveContext(
        user_domain_id="default",
        project_domain_id="default",
        **{name: CONTEXT[name] for name in names},
    )
    return secure_serializer.SecureSerializer(inner, SECRET), context


def transport(kind, url, key, claims):
    import oslo_messaging
    from oslo_config import cfg

    lines = ["[DEFAULT]", "control_exchange = bench-" + kind]
    lines += [f"transport_url = {url.replace('amqp://', 'rabbit://')}"]
    if kind == "sealed":
        lines[-1] = lines[-1].replace("rabbit://", "bulla+rabbit://")
        lines += ["[bulla]", f"key_file = {key}", f"topics = {TOPIC}sealed:component/echo"]
        lines += ["open_to_agents = *", "only_host = true"]
        if claims:
            lines += [f"claims = {claims}"]
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        # The global object: oslo.metrics knows no other.
        cfg.CONF(["--config-file", file.name], project="bench")
        return oslo_messaging.get_rpc_transport(cfg.CONF)


def serve(kind, carrier, serializer):
    import oslo_messaging

    target = oslo_messaging.Target(topic=TOPIC + kind, server="host-1")
    server = oslo_messaging.get_rpc_server(
        carrier,
        target,
        [Echo()],
        executor="threading",
        serializer=serializer,
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
    )
    server.start()
    print("ready", flush=True)
    sys.stdin.read()


def call(kind, carrier, serializer, context):
    import oslo_messaging

    make = getattr(oslo_messaging, "get_rpc_client", None) or oslo_messaging.RPCClient
    target = oslo_messaging.Target(topic=TOPIC + kind)
    client = make(carrier, target, serializer=serializer, timeout=60)
    client.call(context, "echo", value="")
    print("ready", flush=True)
    for line in sys.stdin:
        threads, seconds, size = line.split()
        value, taken, wrong = "v" * int(size), [], []

        def work(end):
            while time.perf_counter() < end and not wrong:
                begun = time.perf_counter()
                try:
                    assert client.call(context, "echo", value=value) == value
                except Exception as error:
                    wrong.append(repr(error))
                taken.append(time.perf_counter() - begun)

        server_before, client_before = client.call(context, "used"), time.process_time()
        begun = time.perf_counter()
        workers = [
            threading.Thread(target=work, args=(begun + float(seconds),))
            for _ in range(int(threads))
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        lasted = time.perf_counter() - begun
        used = {
            "client": time.process_time() - client_before,
            "server": client.call(context, "used") - server_before,
        }
        print(
            json.dumps({"taken": taken, "lasted": lasted, "used": used, "wrong": wrong[:3]}),
            flush=True,
        )


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    end, kind, url, *more = sys.argv[1:]
    key, claims = (more + [None, None])[:2]
    # Trove registers its options before they are read.
    serializer, context = serializer_and_context(kind)
    carrier = transport(kind, url, key, claims)
    if end == "server":
        serve(kind, carrier, serializer)
    else:
        call(kind, carrier, serializer, context)
    os._exit(0)
