"""Twelve peers, mixed plain and encrypted by Trove's serializer, moved one by one to sealed-only while they
call each other: no call and no cast is lost, fails, or runs twice."""

import collections
import datetime
import importlib.util
import json
import pathlib
import signal
import subprocess
import sys
import time

import attacker as attacks
from deployment import eventually

PEER = pathlib.Path(__file__).with_name("migrating_peer.py")
# Trove is there beside Debian's oslo.messaging alone.
TROVE = importlib.util.find_spec("trove") is not None
GUESTS = [f"m-{n}" for n in range(9)]
TOPICS = {
    "trove-conductor": "component/conductor",
    "trove-taskmanager": "component/taskmanager",
    "trove-api": "component/api",
    **{f"guestagent.{guest}": f"agent/{guest}" for guest in GUESTS},
}
CALLS = {
    "trove-conductor": [],
    "trove-taskmanager": [f"guestagent.{guest}" for guest in GUESTS],
    "trove-api": ["trove-taskmanager"],
    **{f"guestagent.{guest}": ["trove-conductor"] for guest in GUESTS},
}
PASSES = {
    "plain": None,
    "reads both": {"send": "plain", "accept": "both"},
    "sends sealed": {"send": "sealed", "accept": "both"},
    "sealed only": {"send": "sealed", "accept": "sealed"},
}


class Peer:
    def __init__(self, deployment, topic):
        self.deployment, self.topic, self.folder = deployment, topic, deployment.folder
        kind, name = TOPICS[topic].split("/")
        self.key = deployment.component(name, f"{name}-m") if kind == "component" else deployment.agent(name)
        self.log = self.folder / f"{topic}.log"
        self.errors = open(self.folder / f"{topic}.err", "w")
        self.process = None

    def conf(self, settings):
        lines = ["[DEFAULT]", "control_exchange = openstack", "rpc_response_timeout = 40"]
        scheme = "rabbit" if settings is None else "bulla+rabbit"
        lines += [f"transport_url = {self.deployment.amqp.replace('amqp', scheme, 1)}"]
        if settings is not None:
            end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
            topics = "trove-*:component/*,guestagent.*:agent/*"
            lines += ["[bulla]", f"key_file = {self.key}", f"topics = {topics}", "only_host = true"]
            lines += ["open_to_agents = *", "open_to_components = *"]
            lines += [f"{name} = {value}" for name, value in settings.items()]
            if settings["send"] == "plain":
                lines += [f"send_plain_until = {end.isoformat()}"]
            if settings["accept"] == "both":
                lines += [f"accept_plain_until = {end.isoformat()}"]
        path = self.folder / f"{self.topic}.conf"
        path.write_text("\n".join(lines) + "\n")
        return path

    def start(self, settings, quiet=False):
        asked = {
            "quiet": quiet,
            "conf": str(self.conf(settings)),
            "log": str(self.log),
            "topic": self.topic,
            "calls": CALLS[self.topic],
            "trove": TROVE,
            "legacy": TROVE and self.topic in ("trove-api", "trove-taskmanager"),
        }
        self.process = subprocess.Popen(
            [sys.executable, str(PEER), json.dumps(asked)],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def ready(self):
        assert self.process.stdout.readline() == "ready\n", pathlib.Path(self.errors.name).read_text()

    def end(self):
        self.process.terminate()
        assert self.process.wait(90) == 0, pathlib.Path(self.errors.name).read_text()

    def move(self, settings):
        self.end()
        self.start(settings)
        self.ready()

    def lines(self):
        return [line.split(" ", 1) for line in self.log.read_text().splitlines()]


def test_nothing_is_lost_on_the_way_over(deployment):
    deployment.bulla("policy", "rollback", "0") if policy_is_active(deployment) else None
    peers = [Peer(deployment, topic) for topic in TOPICS]
    for peer in peers:
        peer.start(PASSES["plain"], quiet=True)
    try:
        for peer in peers:
            peer.ready()
        # Nobody calls before there are queues for all: what has no queue, oslo.messaging drops.
        for peer in peers:
            peer.process.send_signal(signal.SIGUSR2)
        for settings in list(PASSES.values())[1:]:
            for peer in peers:
                peer.move(settings)
        for peer in peers:
            peer.process.send_signal(signal.SIGUSR1)
        refuse_what_is_not_sealed(deployment, peers)
        # What is under way ends before those go who run it.
        time.sleep(2)
    finally:
        for peer in peers:
            peer.process.terminate()
    for peer in peers:
        assert peer.process.wait(90) == 0
    counted = collections.Counter()
    casts, ran = collections.Counter(), collections.Counter()
    failures = []
    for peer in peers:
        for word, *rest in peer.lines():
            counted[word] += 1
            if word == "failed":
                failures.append((peer.topic, rest))
            elif word == "cast":
                casts[rest[0]] += 1
            elif word == "ran":
                ran[rest[0]] += 1
    print(dict(counted))
    assert failures == []
    assert counted["called"] > 300
    assert ran == casts


def refuse_what_is_not_sealed(deployment, peers):
    """After its move no peer runs what is not sealed, be it plain or in Trove's form."""
    attacker = attacks.Attacker(deployment.amqp)
    for peer in peers:
        attacker.plain("openstack", peer.topic, "note", {"id": f"plain:{peer.topic}"})
        attacker.plain("openstack", peer.topic, "note", {"id": "QUJD" * 8}, {"context": "QUJD" * 8})
    attacker.close()

    def refused(peer):
        return pathlib.Path(peer.errors.name).read_text().count("it is not sealed") >= 2

    eventually(lambda: all(refused(peer) for peer in peers))
    # `ran == casts` sees it, too, if one of them ran.


def policy_is_active(deployment):
    return (deployment.folder / "policy.cedar").exists() or (deployment.folder / "trove.cedar").exists()
