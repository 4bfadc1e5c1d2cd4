"""Twelve peers, mixed plain and encrypted by Trove's serializer, moved one by one to sealed-only while they
call each other: no call and no cast is lost, fails, or runs twice. The commands and the settings are those of
docs/migrate-openstack.md, word for word but for addresses, names of guests, and dates."""

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
import guide
from deployment import eventually

PEER = pathlib.Path(__file__).with_name("migrating_peer.py")
# Trove is there beside Debian's oslo.messaging alone.
TROVE = importlib.util.find_spec("trove") is not None
GUESTS = [f"m-{n}" for n in range(9)]
TOPICS = {
    "trove-conductor": "component/conductor",
    "taskmanager": "component/taskmanager",
    "trove-api": "component/api",
    **{f"guestagent.{guest}": f"agent/{guest}" for guest in GUESTS},
}
CALLS = {
    "trove-conductor": [],
    "taskmanager": [f"guestagent.{guest}" for guest in GUESTS],
    "trove-api": ["taskmanager"],
    **{f"guestagent.{guest}": ["trove-conductor"] for guest in GUESTS},
}


def without(lines, word):
    return [line for line in lines if not line.startswith(word)]


# "Pass 2 takes the two lines about `send` away, pass 3 those about `accept`."
READS_BOTH = guide.first_pass()
SENDS_SEALED = without(READS_BOTH, "send")
SEALED_ONLY = without(SENDS_SEALED, "accept")
PLAIN = None


class Peer:
    def __init__(self, deployment, topic):
        self.deployment, self.topic, self.folder = deployment, topic, deployment.folder
        kind, name = TOPICS[topic].split("/")
        self.key = deployment.home / (f"components/{name}-1.key" if kind == "component" else f"agents/{name}.key")
        self.log = self.folder / f"{topic}.log"
        self.errors = open(self.folder / f"{topic}.err", "w")
        self.process = None

    def conf(self, more):
        guides = guide.settings()
        [url] = guides["DEFAULT"]
        place = self.deployment.amqp.removeprefix("amqp://")
        url = url.replace("user:password@broker:5672/", place)
        assert place in url
        lines = ["[DEFAULT]", "control_exchange = openstack", "rpc_response_timeout = 40"]
        if more is PLAIN:
            lines += [url.replace("bulla+rabbit", "rabbit")]
        else:
            end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
            lines += [url, "[bulla]"]
            for line in guides["bulla"] + more:
                name, value = line.split(" = ", 1)
                value = {"key_file": str(self.key)}.get(name, value)
                # Trove's API serves nobody; the peer here does, to be a twelfth.
                value += ",trove-api:component/api" if name == "topics" else ""
                lines += [f"{name} = {end.isoformat() if name.endswith('_until') else value}"]
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
            "legacy": TROVE and self.topic in ("trove-api", "taskmanager"),
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
    add_everybody(deployment)
    peers = [Peer(deployment, topic) for topic in TOPICS]
    for peer in peers:
        peer.start(PLAIN, quiet=True)
    try:
        for peer in peers:
            peer.ready()
        # Nobody calls before there are queues for all: what has no queue, oslo.messaging drops.
        for peer in peers:
            peer.process.send_signal(signal.SIGUSR2)
        for settings in (READS_BOTH, SENDS_SEALED):
            for peer in peers:
                peer.move(settings)
        # "Goes on when the census has nothing new."
        moved = time.time() + 1
        assert in_clear(deployment, peers), "nothing came in clear before"
        for peer in peers:
            peer.move(SEALED_ONLY)
        assert all(row["last"] <= moved for row in in_clear(deployment, peers))
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


def add_everybody(deployment):
    """What stands under "Before"; package, control plane and its service are there already."""
    there = ["pip", "init", "serve"]
    for program, *words in guide.commands("Before"):
        if program in there or words[0] in there:
            continue
        assert program == "bulla"
        for guest in GUESTS if "INSTANCE-ID" in words else [None]:
            deployment.bulla(*(guest if word == "INSTANCE-ID" else word for word in words))


def in_clear(deployment, peers):
    """The rows of all peers' files, as `bulla peers clear` shows them."""
    files = [path for peer in peers if (path := pathlib.Path(f"{peer.key}.clear.json")).exists()]
    return json.loads(deployment.bulla("--json", "peers", "clear", *map(str, files))) if files else []
