"""One peer of the migration: serves, calls and casts until it is told to end. migrating_peer.py JSON"""

import json
import random
import signal
import sys
import threading
import time

import oslo_messaging

import oslo_peers as peers


def legacy(writes):
    """Trove's serializer; who has not turned it on yet only reads it."""
    from trove.common.rpc.secure_serializer import SecureSerializer

    class Mixed(SecureSerializer):
        def _serialize_entity(self, ctxt, entity):
            return super()._serialize_entity(ctxt, entity) if writes else entity

        def _serialize_context(self, ctxt):
            return super()._serialize_context(ctxt) if writes else ctxt

        def _deserialize_context(self, ctxt):
            return super()._deserialize_context(ctxt) if "context" in ctxt else ctxt

    return Mixed(oslo_messaging.NoOpSerializer(), b"0123456789abcdef0123456789abcdef")


def mend():
    """oslo.messaging's rabbit driver acknowledges what still comes while it stops, and then nobody runs it.
    Mended in the peers that are not moved yet: what is counted here is what the move loses."""
    from oslo_messaging._drivers import amqpdriver

    take = amqpdriver.RpcAMQPListener.__call__

    def take_unless_stopped(self, message):
        if not self._shutdown.is_set():
            take(self, message)

    amqpdriver.RpcAMQPListener.__call__ = take_unless_stopped


class Endpoint:
    def __init__(self, log):
        self.log = log

    def double(self, ctxt, n):
        return 2 * n

    def note(self, ctxt, id):
        self.log("ran", id)


def main(asked):
    lock, out = threading.Lock(), open(asked["log"], "a")

    def log(*words):
        with lock:
            print(*words, file=out, flush=True)

    mend()
    conf = peers.open_settings(asked["conf"])
    serializer = legacy(asked["legacy"]) if asked["trove"] else None
    carrier = peers.transport(conf)
    server = peers.server(carrier, asked["topic"], [Endpoint(log)], serializer=serializer)
    stop, quiet = threading.Event(), threading.Event()
    if asked["quiet"]:
        quiet.set()
    signal.signal(signal.SIGUSR1, lambda *_: quiet.set())
    signal.signal(signal.SIGUSR2, lambda *_: quiet.clear())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print("ready", flush=True)
    clients = [peers.client(carrier, topic, serializer=serializer, timeout=40) for topic in asked["calls"]]
    n = 0
    while not stop.wait(0.2):
        n += 1
        for client in () if quiet.is_set() else clients:
            id = f"{asked['topic']}:{time.time_ns()}:{random.random()}"
            try:
                client.cast({}, "note", id=id)
                log("cast", id)
                assert client.call({}, "double", n=n) == 2 * n
                log("called")
            except Exception as error:
                log("failed", type(error).__name__, error)
    peers.stop(server)
    carrier.cleanup()
    log("ended")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
