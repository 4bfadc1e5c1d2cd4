"""What the driver does around the rabbit driver's connections: reading ahead, acknowledging together, and
recovering as the rabbit driver does."""

import contextlib
import functools
import socket
import sys
import threading

import amqp.exceptions
import kombu
import oslo_messaging
import pytest
from oslo_messaging._drivers import impl_rabbit

import oslo_peers as peers
from bulla.oslo import connection
from deployment import eventually


class Endpoint:
    def __init__(self):
        self.ran = []

    def add(self, ctxt, a, b):
        return a + b

    def note(self, ctxt, n):
        self.ran.append(n)


class Both:
    """A server and a client, and the connections of both."""

    def __init__(self, deployment, name, rabbit=()):
        self.name = name
        keys = deployment.component("conductor", name), deployment.agent(name)
        more = {"exchange": name, "rabbit": dict(rabbit), "topics": f"{name}:component/conductor"}
        host = {"open_to_agents": "*", "only_host": "true", "concurrency": 512}
        folder, amqp = deployment.folder, deployment.amqp
        self.endpoint = Endpoint()
        self.serving = peers.transport(peers.settings(folder, amqp, keys[0], **more, **host))
        self.server = peers.server(self.serving, name, [self.endpoint])
        self.calling = peers.transport(peers.settings(folder, amqp, keys[1], **more))
        self.client = peers.client(self.calling, name, timeout=30)

    def taking(self):
        """The connections that messages come over: requests, and replies."""
        return [self.server.listener.conn.connection, self.calling._driver._waiter.conn.connection]

    def sending(self):
        """Those that are in the pools."""
        return [
            conn
            for driver in (self.serving._driver, self.calling._driver)
            for _, conn in driver._connection_pool._items
        ]

    def close(self):
        peers.stop(self.server)
        self.calling.cleanup()
        self.serving.cleanup()


@pytest.fixture
def both(deployment, request):
    made = Both(deployment, request.node.name.replace("_", "-")[:40])
    yield made
    made.close()


def sock_of(conn):
    return conn.channel.connection.transport


def cut(conn):
    with contextlib.suppress(OSError):
        sock_of(conn).sock.shutdown(socket.SHUT_RDWR)


def test_lines_are_cut(both):
    assert both.client.call({}, "add", a=1, b=1) == 2
    for conns in (both.taking, both.sending, lambda: both.taking() + both.sending()):
        assert conns()
        for conn in conns():
            cut(conn)
        for n in range(8):
            assert both.client.call({}, "add", a=n, b=1) == n + 1
    for conn in both.taking() + both.sending():
        # After a reconnection as before.
        assert isinstance(sock_of(conn)._quick_recv, functools.partial)


def test_lines_are_cut_under_traffic(both):
    stop, outcomes = threading.Event(), []

    def traffic():
        while not stop.is_set():
            try:
                outcomes.append(both.client.call({}, "add", a=1, b=1))
            except Exception as error:
                outcomes.append(repr(error))

    threads = [threading.Thread(target=traffic) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(1, 4):
        eventually(lambda: len(outcomes) > n * 40)
        for conn in both.sending() if n % 2 else both.taking():
            with contextlib.suppress(AttributeError):
                cut(conn)
    eventually(lambda: len(outcomes) > 200)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(outcomes) == {2}


def test_queues_are_deleted(both, deployment):
    """The broker says once that it is so."""
    assert both.client.call({}, "add", a=1, b=1) == 2
    queues = [both.name, both.calling._driver._reply_q]
    with kombu.Connection(deployment.amqp) as broker:
        for queue in queues:
            broker.default_channel.queue_delete(queue)

    def is_served(queue):
        with contextlib.suppress(amqp.exceptions.NotFound):
            with kombu.Connection(deployment.amqp) as broker:
                declared = broker.default_channel.queue_declare(queue, passive=True)
                return declared.consumer_count == 1

    for queue in queues:
        eventually(lambda queue=queue: is_served(queue))
    assert both.client.call({}, "add", a=1, b=2) == 3


def test_what_came_together_is_acknowledged_and_runs_once(both, deployment):
    assert both.client.call({}, "add", a=1, b=1) == 2
    listener, gate, together = both.server.listener, threading.Event(), []
    accept, taking = listener.accept, listener.conn.connection
    take_all = taking.on_taken

    def accept_later(job):
        gate.wait(30)
        accept(job)

    def counted():
        together.append(len(listener._came))
        take_all()

    listener.accept, taking.on_taken = accept_later, counted
    for n in range(300):
        both.client.cast({}, "note", n=n)
    gate.set()
    eventually(lambda: len(both.endpoint.ran) == 300)
    assert sorted(both.endpoint.ran) == list(range(300))
    assert max(together) > 1
    peers.stop(both.server)
    with kombu.Connection(deployment.amqp) as broker:
        # What was not acknowledged would be back in its queue.
        assert broker.default_channel.queue_declare(both.name, passive=True).message_count == 0


def test_nothing_is_made_of_what_is_sealed(both, monkeypatch):
    """What is sealed goes to who opens it as it came, and oslo.messaging reads none of it."""
    assert both.client.call({}, "add", a=1, b=1) == 2
    read = []
    monkeypatch.setattr(impl_rabbit, "RabbitMessage", read.append)
    for n in range(3):
        assert both.client.call({}, "add", a=n, b=1) == n + 1
    assert not read


def test_one_read_brings_a_message(both):
    """A message is three frames, of three parts each."""
    assert both.client.call({}, "add", a=1, b=1) == 2
    counts = []
    for conn in both.taking():
        transport = sock_of(conn)
        receive = transport._quick_recv.args[0]

        def counted(size, receive=receive):
            counts.append(size)
            return receive(size)

        transport._quick_recv = functools.partial(connection._receive, counted)
    for n in range(50):
        both.client.call({}, "add", a=n, b=1)
    # A read at a time may be a part of a message, but nine of them are not.
    assert 0 < len(counts) < 2 * 50 * 4, len(counts)
    assert set(counts) == {connection.AHEAD}


def test_long_messages_are_sealed_without_the_interpreters_lock(both):
    """Short ones are sealed before another thread could be given it."""
    assert both.client.call({}, "add", a=1, b=1) == 2
    driver = both.calling._driver
    to = driver.target_of(oslo_messaging.Target(exchange=both.name, topic=both.name))

    def others_run(size):
        go, ran = threading.Event(), []
        other = threading.Thread(target=lambda: (go.wait(), ran.append(True)))
        other.start()
        go.set()
        begun = driver.session.peer.call(
            to, "add", {"a": "x" * size}, reply_queue=driver._reply_q
        )
        seen, sealed = bool(ran), begun.is_sealed()
        begun.cancel()
        other.join()
        assert sealed
        return seen

    interval = sys.getswitchinterval()
    # Nobody is made to give it away.
    sys.setswitchinterval(1000)
    try:
        assert not any(others_run(1024) for _ in range(50))
        assert any(others_run(4 << 20) for _ in range(50))
    finally:
        sys.setswitchinterval(interval)
