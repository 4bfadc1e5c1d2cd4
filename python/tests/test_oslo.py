"""oslo.messaging's client and server over the driver."""

import threading
import time

import oslo_messaging
import pytest

import oslo_peers as peers


class Endpoint:
    target = oslo_messaging.Target(version="1.4")

    def __init__(self):
        self.seen = []

    def add(self, ctxt, a, b):
        self.seen.append((ctxt, a, b))
        return a + b

    def fail(self, ctxt, text):
        raise ValueError(text)

    def note(self, ctxt, text):
        self.seen.append(text)


def test_a_call_and_its_result(deployment):
    conductor = deployment.component("conductor")
    guest = deployment.agent("guest-1")
    endpoint = Endpoint()
    serving = peers.transport(
        peers.settings(
            deployment.folder, deployment.amqp, conductor, open_to_agents="*", only_host="true"
        )
    )
    server = peers.server(serving, "trove-conductor", [endpoint])
    calling = peers.transport(peers.settings(deployment.folder, deployment.amqp, guest))
    client = peers.client(calling, "trove-conductor")
    context = {"user": "ada", "auth_token": "secret", "nested": {"list": [1, 2.5, None, True]}}
    assert client.call(context, "add", a=1, b=41) == 42
    assert endpoint.seen == [(context, 1, 41)]
    with pytest.raises(ValueError) as raised:
        client.call({}, "fail", text="äh")
    assert "äh" in str(raised.value)
    client.cast({}, "note", text="hello")
    client.call({}, "add", a=1, b=1)
    assert "hello" in endpoint.seen
    peers.stop(server)
    calling.cleanup()
    serving.cleanup()


def test_a_receiver_that_lost_its_sessions(deployment):
    conductor, guest = deployment.component("conductor", "restarts"), deployment.agent("restarts")
    more = {"open_to_agents": "*", "only_host": "true"}
    calling = peers.transport(peers.settings(deployment.folder, deployment.amqp, guest))
    client = peers.client(calling, "trove-conductor", timeout=10)
    for n in range(3):
        serving = peers.transport(
            peers.settings(deployment.folder, deployment.amqp, conductor, **more)
        )
        server = peers.server(serving, "trove-conductor", [Endpoint()])
        # The first is made while the server knows no session: it is sent again with its offer.
        assert client.call({}, "add", a=n, b=1) == n + 1
        assert client.call({}, "add", a=n, b=2) == n + 2
        peers.stop(server)
        serving.cleanup()
    calling.cleanup()


def test_a_restart_under_traffic_loses_nothing(deployment):
    tasks, guest = deployment.component("taskmanager", "restarting"), deployment.agent("busy")
    calling = peers.transport(peers.settings(deployment.folder, deployment.amqp, tasks))
    client = peers.client(calling, "guestagent.busy", timeout=20)
    stop, outcomes = threading.Event(), []

    def traffic():
        while not stop.is_set():
            try:
                outcomes.append(client.call({}, "add", a=1, b=1))
            except Exception as error:
                outcomes.append(repr(error))

    thread = threading.Thread(target=traffic)
    for n in range(4):
        serving = peers.transport(peers.settings(deployment.folder, deployment.amqp, guest))
        server = peers.server(serving, "guestagent.busy", [Endpoint()])
        if n == 0:
            thread.start()
        time.sleep(0.5)
        if n == 3:
            stop.set()
            thread.join()
        peers.stop(server)
        serving.cleanup()
    calling.cleanup()
    assert len(outcomes) > 10 and set(outcomes) == {2}


@pytest.mark.parametrize(
    "options",
    [
        {"amqp_durable_queues": "true"},
        {"rabbit_quorum_queue": "true"},
        {"amqp_auto_delete": "true", "rabbit_qos_prefetch_count": "5"},
        {"kombu_compression": "gzip"},
        {"use_queue_manager": "true", "hostname": "host-7", "processname": "conductor"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_the_drivers_own_options(deployment, options):
    name = next(iter(options)).replace("_", "-")
    conductor, guest = deployment.component("conductor", name), deployment.agent(name)
    more = {"exchange": name, "rabbit": options, "topics": f"{name}:component/conductor"}
    host = {"open_to_agents": "*", "only_host": "true"}
    serving = peers.transport(
        peers.settings(deployment.folder, deployment.amqp, conductor, **more, **host)
    )
    server = peers.server(serving, name, [Endpoint()])
    calling = peers.transport(peers.settings(deployment.folder, deployment.amqp, guest, **more))
    client = peers.client(calling, name)
    assert client.call({}, "add", a=1, b=2) == 3
    assert client.prepare(server="host-1").call({}, "add", a=2, b=2) == 4
    with pytest.raises(oslo_messaging.MessagingException):
        client.prepare(fanout=True).cast({}, "note", text="no group is behind it")
    with pytest.raises(oslo_messaging.RemoteError):
        client.prepare(version="1.9").call({}, "add", a=1, b=2)
    peers.stop(server)
    calling.cleanup()
    serving.cleanup()
