"""Fanouts: every member runs them once, nobody else does, also after the group's key was changed."""

import contextlib
import time

import oslo_messaging

import attacker as attacks
import oslo_peers as peers
from deployment import eventually

TOPIC = "guests"
TOPICS = "guests:component/audit,guests@*:agent/*"


class Endpoint:
    def __init__(self):
        self.ran = []

    def note(self, ctxt, text):
        self.ran.append(text)


class Member:
    """Who serves the topic, whether or not it is in the group behind it: all agents."""

    def __init__(self, deployment, key, name):
        self.endpoint = Endpoint()
        settings = {"topics": TOPICS, "fanouts": f"{TOPIC}:all", "only_host": "true"}
        settings["open_to_components"] = "*"
        conf = peers.settings(deployment.folder, deployment.amqp, key, **settings)
        self.carrier = peers.transport(conf)
        self.server = peers.server(self.carrier, TOPIC, [self.endpoint], name=name)
        self.peer = self.carrier._driver.session.peer

    def refused(self):
        return sum(self.peer.refusals().values())

    def heard(self, text):
        return text in self.endpoint.ran

    def close(self):
        peers.stop(self.server)
        self.carrier.cleanup()


def test_members_run_it_and_nobody_else(deployment):
    key = deployment.component("taskmanager", "fanning")
    deployment.bulla("group", "add", "all", "--member", "component/taskmanager")
    members = {name: Member(deployment, deployment.agent(name), name) for name in ("fan-1", "fan-2")}
    stranger = Member(deployment, deployment.component("audit", "fan-audit"), "fan-audit")
    settings = {"topics": TOPICS, "fanouts": f"{TOPIC}:all"}
    sending = peers.transport(peers.settings(deployment.folder, deployment.amqp, key, **settings))
    fan = peers.client(sending, TOPIC, fanout=True)
    attacker = attacks.Attacker(deployment.amqp)
    seen = attacker.sniff(f"{TOPIC}_fanout", "")
    try:
        fan.cast({}, "note", text="now")
        eventually(lambda: all(member.heard("now") for member in members.values()))
        body = seen.next()
        readable = attacks.everything_readable(body)
        assert b"now" not in readable and b"note" not in readable
        assert set(attacks.inner_of(body)) == {"bulla", "_unique_id"}
        eventually(lambda: stranger.refused() >= 1)
        # The very same bytes again run nowhere; changed ones neither.
        frame = bytearray(attacks.frame_of(body))
        frame[-20] ^= 1
        for copy in (body, attacks.again(body), attacks.with_frame(body, bytes(frame))):
            attacker.publish(f"{TOPIC}_fanout", "", copy)
        for member in members.values():
            eventually(lambda: member.peer.duplicates() >= 1 and member.refused() >= 1)
            assert member.endpoint.ran == ["now"]
        # What is not sealed is refused, and a member can't send to the others.
        forged = {"method": "note", "args": {"text": "forged"}, "version": "1.0"}
        attacker.publish(f"{TOPIC}_fanout", "", attacks.enveloped(forged))
        own = peers.client(members["fan-1"].carrier, TOPIC, fanout=True)
        with contextlib.suppress(oslo_messaging.MessagingException):
            own.cast({}, "note", text="by a member")
        # One leaves, and the group's key changes; one comes.
        deployment.bulla("agent", "revoke", "fan-2")
        gone = members.pop("fan-2")
        members["fan-3"] = Member(deployment, deployment.agent("fan-3"), "fan-3")
        said = []

        def settled():
            """Those who are in the group hear it, and who left does not."""
            said.append(f"then {len(said)}")
            try:
                fan.cast({}, "note", text=said[-1])
            except oslo_messaging.MessagingException:
                # It knows that there is a newer key, and waits for it.
                return False
            time.sleep(0.5)
            heard = all(member.heard(said[-1]) for member in members.values())
            return heard and not gone.heard(said[-1])

        eventually(settled, 60)
        fan.cast({}, "note", text="last")
        eventually(lambda: all(member.heard("last") for member in members.values()))
        assert not gone.heard("last")
        assert stranger.endpoint.ran == []
        for member in (*members.values(), gone):
            assert not member.heard("by a member") and not member.heard("forged")
            assert len(member.endpoint.ran) == len(set(member.endpoint.ran)), "each runs once"
    finally:
        attacker.close()
        for member in members.values():
            member.close()
        stranger.close()
        sending.cleanup()
