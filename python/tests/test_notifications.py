"""Notifications of both drivers, and several targets and listeners in one process."""

import datetime

import oslo_messaging
import pytest

import attacker as attacks
import oslo_peers as peers
from deployment import eventually

TOPICS = "notifications:component/audit,audit:component/audit,audit-more:component/audit"
SECRET = "s3cret-payload"


class Listening:
    """An endpoint for notifications; it puts the first of each type back once if told to."""

    filter_rule = oslo_messaging.NotificationFilter(publisher_id="compute.*")

    def __init__(self):
        self.seen, self.back = [], set()

    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        if event_type in self.back:
            self.back.discard(event_type)
            return oslo_messaging.NotificationResult.REQUEUE
        self.seen.append((ctxt.get("user_id"), publisher_id, event_type, payload, metadata["message_id"]))

    def error(self, ctxt, publisher_id, event_type, payload, metadata):
        self.seen.append(("error", event_type))


class Methods:
    def __init__(self, name):
        self.name = name

    def who(self, ctxt):
        return self.name


def notifying(deployment, key, **more):
    conf = peers.settings(deployment.folder, deployment.amqp, key, topics=TOPICS, **more)
    return oslo_messaging.get_notification_transport(conf)


def listener(carrier, endpoint, pool=None):
    made = oslo_messaging.get_notification_listener(
        carrier,
        [oslo_messaging.Target(topic="notifications")],
        [endpoint],
        executor="threading",
        allow_requeue=True,
        pool=pool,
    )
    made.start()
    return made


def test_both_drivers_and_two_targets_beside(deployment):
    audit, guest = deployment.component("audit", "audit-1"), deployment.agent("noting")
    opened = {"open_to_agents": "*", "open_to_components": "*", "only_host": "true"}
    serving = notifying(deployment, audit, **opened)
    endpoint = Listening()
    listening = listener(serving, endpoint)
    servers = [
        peers.server(serving, topic, [Methods(topic)], name="host-1") for topic in ("audit", "audit-more")
    ]
    sending = notifying(deployment, guest)
    attacker = attacks.Attacker(deployment.amqp)
    seen = attacker.sniff("openstack", "notifications.info")
    try:
        for driver in ("messaging", "messagingv2"):
            notifier = oslo_messaging.Notifier(
                sending, driver=driver, publisher_id="compute.host-9", topics=["notifications"]
            )
            payload = {"secret": SECRET, "n": [1, None]}
            notifier.info({"user_id": "ada-lovelace"}, f"instance.{driver}", payload)
            eventually(lambda: any(row[2] == f"instance.{driver}" for row in endpoint.seen))
            row = endpoint.seen[-1]
            assert row[1] == "compute.host-9" and row[3] == payload
            body = seen.next()
            readable = attacks.everything_readable(body)
            for word in (SECRET, "instance", "ada-lovelace", "compute", "payload", "publisher"):
                assert word.encode() not in readable
            assert set(attacks.inner_of(body)) == {"bulla", "_unique_id"}
            # Again, as the driver would tell it from the first.
            attacker.publish("openstack", "notifications.info", attacks.again(body))
        peer = serving._driver.session.peer
        eventually(lambda: peer.duplicates() >= 2)
        # One that is put back comes again; one of another priority comes through its own queue.
        endpoint.back.add("again")
        notifier.info({}, "again", {})
        notifier.error({}, "broken", {})
        eventually(lambda: ("error", "broken") in endpoint.seen)
        eventually(lambda: any(row[2:3] == ("again",) for row in endpoint.seen))
        # A forged one in clear, and one of a stranger's for another queue.
        before = serving._driver.session.refused
        forged = {"message_id": "1", "publisher_id": "compute.x", "event_type": "forged", "priority": "INFO"}
        forged |= {"payload": {}, "timestamp": "2026-01-01 00:00:00.0", "_unique_id": "0" * 32}
        attacker.publish("openstack", "notifications.info", attacks.enveloped(forged))
        attacker.publish("openstack", "notifications.info", attacks.json.dumps(forged))
        eventually(lambda: serving._driver.session.refused >= before + 2)
        # Several targets in one process, each with its own methods.
        for topic in ("audit", "audit-more"):
            client = peers.client(sending, topic)
            assert client.call({}, "who") == topic
            assert client.prepare(server="host-1").call({}, "who") == topic
        assert len(endpoint.seen) == 4 and "forged" not in str(endpoint.seen)
        stranger = oslo_messaging.Notifier(
            sending, driver="messagingv2", publisher_id="compute.x", topics=["nobody"]
        )
        with pytest.raises(oslo_messaging.MessagingException):
            sending._send_notification(
                oslo_messaging.Target(topic="nobody.info"), {}, {"payload": {}}, 2.0
            )
        stranger.info({}, "lost", {})  # Notifiers swallow what can't be sent, and log it.
    finally:
        attacker.close()
        for made in (*servers, listening):
            peers.stop(made)
        sending.cleanup()
        serving.cleanup()


def test_what_comes_in_clear_is_counted_by_sender_and_method(deployment):
    """Pass 1: read both, and the census of who still sends in clear."""
    end = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)).isoformat()
    audit = deployment.component("audit", "audit-2")
    both = {"accept": "both", "accept_plain_until": end, "only_host": "true", "topics": "cens:component/audit"}
    serving = peers.transport(peers.settings(deployment.folder, deployment.amqp, audit, **both))
    server = peers.server(serving, "cens", [Methods("cens")])
    plain = peers.transport(peers.settings(deployment.folder, deployment.amqp, None))
    client = peers.client(plain, "cens")
    assert [client.call({}, "who") for _ in range(3)] == ["cens"] * 3
    client.cast({"user_id": "u-1"}, "who")
    census = serving._driver.session.census
    eventually(lambda: sum(row["count"] for row in census.rows()) == 4)
    first, second = census.rows()
    assert (first["topic"], first["method"], first["count"]) == ("cens", "who", 3)
    assert first["from"].startswith("reply_")
    assert (second["from"], second["count"]) == ("u-1", 1)
    # A flood of invented names takes no room.
    for n in range(2000):
        census.note("cens", {"method": f"m{n}", "_context_user": f"u{n}"})
    census.note("cens", {"method": "x\ny" * 9, "_context_user": ["?"]})
    assert len(census.rows()) <= 513 and sum(row["count"] for row in census.rows()) == 2005
    peers.stop(server)
    plain.cleanup()
    serving.cleanup()
    written = attacks.json.loads(open(census.path).read())["in_clear"]
    assert written == census.rows()
    assert "\n" not in str(written)


def test_a_body_that_can_be_read_in_two_ways_is_refused(deployment):
    key = deployment.component("audit", "audit-3")
    calling = deployment.agent("twice")
    more = {"topics": "twice:component/audit", "open_to_agents": "*", "only_host": "true"}
    serving = peers.transport(peers.settings(deployment.folder, deployment.amqp, key, **more))
    server = peers.server(serving, "twice", [Methods("twice")])
    sending = peers.transport(
        peers.settings(deployment.folder, deployment.amqp, calling, topics="twice:component/audit")
    )
    client = peers.client(sending, "twice")
    assert client.call({}, "who") == "twice"
    attacker = attacks.Attacker(deployment.amqp)
    seen = attacker.sniff("openstack", "twice")
    client.call({}, "who")
    body = attacks.json.loads(seen.next())
    inner = body["oslo.message"]
    twice = [
        # Each is what Python's parser makes the same message of.
        {**body, "oslo.message": '{"bulla": "AAAA", ' + inner[1:]},
        {**body, "oslo.message": inner[:-1] + ', "_unique_id": "' + "0" * 32 + '"}'},
    ]
    bodies = [attacks.json.dumps(one) for one in twice]
    bodies.append('{"oslo.version": "1.0", ' + attacks.json.dumps(body)[1:])
    bodies.append(attacks.json.dumps({**body, "more": 1}))
    before = serving._driver.session.peer.refusals().get("malformed", 0)
    for one in bodies:
        attacker.publish("openstack", "twice", one)
    eventually(lambda: serving._driver.session.peer.refusals().get("malformed", 0) >= before + 4)
    attacker.close()
    peers.stop(server)
    sending.cleanup()
    serving.cleanup()
