"""A peer of real oslo.messaging, with Trove's real serializers if it is told so.

    peer.py URL OPTIONS

OPTIONS is a JSON object: `rabbit` (options of oslo.messaging's RabbitMQ driver), `key` (Trove's
SecureSerializer), `guest` (Trove's ConductorGuestSerializer, with `key`), `exchange`, and for a server `topic` and
`server`; and `config` (a file with more settings). A client takes requests as lines of JSON and answers each with a
line; a server says READY.
"""
import json
import os
import sys
import threading
import time

os.environ["NO_EVENTLET_MONKEYPATCH"] = "1"
URL, OPTIONS = sys.argv[1], json.loads(sys.argv[2])
KEY = OPTIONS.get("key")

if KEY:
    from trove.common.context import TroveContext
    from trove.common import cfg as _cfg  # registers Trove's options  # noqa: F401
import oslo_messaging as om
from oslo_config import cfg

CONF = cfg.CONF


def serializer():
    if not KEY:
        return om.JsonPayloadSerializer()
    from trove.common.rpc import serializer as plain
    base = plain.TroveRequestContextSerializer(om.JsonPayloadSerializer())
    if OPTIONS.get("guest"):
        from trove.common.rpc import conductor_guest_serializer as guest
        CONF.set_override("guest_id", OPTIONS["guest"])
        return guest.ConductorGuestSerializer(base, KEY)
    from trove.common.rpc import secure_serializer as secure
    return secure.SecureSerializer(base, KEY)


def transport(kind=om.get_rpc_transport):
    CONF([], project="peer", default_config_files=[OPTIONS["config"]] if "config" in OPTIONS else [])
    om.set_transport_defaults(OPTIONS["exchange"])
    made = kind(CONF, URL)
    for name, value in OPTIONS.get("rabbit", {}).items():
        CONF.set_override(name, value, group="oslo_messaging_rabbit")
    return made


class Broken(Exception):
    pass


class Plain:
    noted = []

    def echo(self, ctxt, value):
        return value

    def nothing(self, ctxt):
        return None

    def note(self, ctxt, value):
        self.noted.append(value)

    def notes(self, ctxt):
        return self.noted

    def who(self, ctxt):
        return ctxt.get("user_id") if isinstance(ctxt, dict) else ctxt.user_id

    def slow(self, ctxt, seconds):
        time.sleep(seconds)
        return "done"

    def fail(self, ctxt, text):
        raise Broken(text)


class Named:
    target = om.Target(namespace="baseapi", version="2.1")

    def ping(self, ctxt, arg):
        return {"pong": arg}


class Listener:
    def info(self, ctxt, publisher, event, payload, metadata):
        print(json.dumps({"event": event, "payload": payload, "publisher": publisher}), flush=True)


def serve():
    if OPTIONS.get("notifications"):
        got = om.get_notification_listener(
            transport(om.get_notification_transport), [om.Target(topic=OPTIONS["topic"])], [Listener()],
            executor="threading")
    else:
        target = om.Target(topic=OPTIONS["topic"], server=OPTIONS["server"])
        got = om.get_rpc_server(transport(), target, [Plain(), Named()], executor="threading",
                                serializer=serializer())
    got.start()
    print("READY", flush=True)
    threading.Event().wait()


def ask(made, line):
    target = om.Target(topic=line["topic"], namespace=line.get("namespace"), version=line.get("version"),
                       server=line.get("server"), fanout=line.get("fanout"))
    client = om.RPCClient(made, target, serializer=serializer(), timeout=line.get("timeout", 20),
                          call_monitor_timeout=line.get("monitor"))
    context = {"user_id": "u1", "roles": ["member"]}
    if KEY:
        context = TroveContext(user_id="u1", project_id="p1", roles=["member"])
    if line["op"] == "call":
        return client.call(context, line["method"], **line.get("args", {}))
    client.cast(context, line["method"], **line.get("args", {}))
    return None


def notify(line):
    made = transport(om.get_notification_transport)
    notifier = om.Notifier(made, "svc.host", driver=line["driver"], topics=[line["topic"]])
    notifier.info({"user_id": "u1"}, line["event"], line["payload"])


def client():
    made = transport()
    print("READY", flush=True)
    for line in sys.stdin:
        line = json.loads(line)
        try:
            if line["op"] == "notify":
                notify(line)
                print(json.dumps({"value": None}), flush=True)
                continue
            print(json.dumps({"value": ask(made, line)}), flush=True)
        except Exception as error:  # noqa: BLE001
            kind = getattr(error, "exc_type", None) or type(error).__name__
            print(json.dumps({"error": kind, "text": str(error)[:300]}), flush=True)


serve() if "topic" in OPTIONS else client()
