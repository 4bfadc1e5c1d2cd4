"""A client and a server on eventlet: green_peer.py FOLDER AMQP CONDUCTOR-KEY GUEST-KEY"""

import eventlet

eventlet.monkey_patch()

import logging
import sys
import time

import oslo_messaging

import oslo_peers as peers

logging.basicConfig(level=logging.WARNING)


class Endpoint:
    def __init__(self):
        self.running = self.most = 0

    def slow(self, ctxt, n):
        self.running += 1
        self.most = max(self.most, self.running)
        eventlet.sleep(0.5)
        self.running -= 1
        return n

    def fail(self, ctxt):
        raise KeyError("no")


def main(folder, amqp, conductor, guest):
    endpoint = Endpoint()
    more = {"open_to_agents": "*", "only_host": "true"}
    serving = peers.transport(peers.settings(folder, amqp, conductor, **more))
    server = peers.server(serving, "trove-conductor", [endpoint], executor="eventlet")
    calling = peers.transport(peers.settings(folder, amqp, guest))
    client = peers.client(calling, "trove-conductor")
    assert client.call({}, "slow", n=1) == 1
    # The hub goes on while all of them wait.
    ticks = []

    def tick():
        while True:
            ticks.append(time.monotonic())
            eventlet.sleep(0.01)

    ticking = eventlet.spawn(tick)
    calls = [eventlet.spawn(client.call, {}, "slow", n=n) for n in range(20)]
    assert [call.wait() for call in calls] == list(range(20))
    ticking.kill()
    assert endpoint.most >= 10, endpoint.most
    assert len(ticks) >= 10, len(ticks)
    try:
        client.call({}, "fail")
        raise AssertionError("it did not fail")
    except KeyError:
        pass
    monitored = client.prepare(call_monitor_timeout=2, timeout=60)
    assert monitored.call({}, "slow", n=3) == 3
    peers.stop(server)
    calling.cleanup()
    serving.cleanup()
    print("all good")


if __name__ == "__main__":
    main(*sys.argv[1:])
