"""One peer of the migration: serves, calls and casts until it is told to end. migrating_peer.py JSON"""

import json
import random
import signal
import sys
import threading
import time

import oslo_messaging

import oslo_peers as peers


class Legacy(oslo_messaging.NoOpSerializer):
    """Trove's serializer; who has not turned it on yet only reads it."""

    def __new__(cls, writes):
        from trove.common.rpc.secure_serializer import SecureSerializer

        class Reading(SecureSerializer):
            def _serialize_entity(self, ctxt, entity):
                return entity

            def _serialize_context(self, ctxt):
                return ctxt

        kind = SecureSerializer if writes else Reading
        return kind(oslo_messaging.NoOpSerializer(), b"0123456789abcdef0123456789abcdef")


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

    conf = peers.open_settings(asked["conf"])
    serializer = Legacy(asked["legacy"]) if asked["trove"] else None
    carrier = peers.transport(conf)
    server = peers.server(carrier, asked["topic"], [Endpoint(log)], serializer=serializer)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print("ready", flush=True)
    clients = [peers.client(carrier, topic, serializer=serializer, timeout=40) for topic in asked["calls"]]
    n = 0
    while not stop.wait(0.05):
        n += 1
        for client in clients:
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
