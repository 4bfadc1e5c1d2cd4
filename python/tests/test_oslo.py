"""oslo.messaging's client and server over the driver."""

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
