"""RPC over RabbitMQ with oslo.messaging, in the clear or with Trove's serializer.

oslo.py client plain|trove    starts the server, then obeys lines of `CONCURRENCY MILLISECONDS`
oslo.py server plain|trove TOPIC
"""
import os
import subprocess
import sys

from load import in_threads, obey

KEY = "0123456789abcdef0123456789abcdef"


def serializer(mode):
    """The serializer, and the context that goes with each request."""
    import oslo_messaging

    if mode == "plain":
        return oslo_messaging.JsonPayloadSerializer(), {"project_id": "p" * 32, "user_id": "u" * 32}
    from trove.common.context import TroveContext
    from trove.common.rpc.secure_serializer import SecureSerializer
    from trove.common.rpc.serializer import TroveRequestContextSerializer

    inner = TroveRequestContextSerializer(oslo_messaging.JsonPayloadSerializer())
    return SecureSerializer(inner, KEY), TroveContext(user_id="u" * 32, project_id="p" * 32)


def transport():
    import oslo_messaging
    from oslo_config import cfg

    cfg.CONF([], project="peers", default_config_files=[])
    return oslo_messaging.get_rpc_transport(cfg.CONF, os.environ["PEER_ADDRESS"])


class Echo:
    def echo(self, context, text):
        return text


def server(mode, topic):
    # Trove adds its options before anything reads them.
    chain, _ = serializer(mode)
    import oslo_messaging

    target = oslo_messaging.Target(topic=topic, server="one")
    serving = oslo_messaging.get_rpc_server(
        transport(), target, [Echo()], executor="threading", serializer=chain
    )
    serving.start()
    print("ready", flush=True)
    # Ends with its parent.
    sys.stdin.read()
    os._exit(0)


def client(mode):
    chain, context = serializer(mode)
    import oslo_messaging

    topic = f"peer-oslo-{mode}-{os.getpid()}"
    command = [sys.executable, os.path.abspath(__file__), "server", mode, topic]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if other.stdout.readline().strip() != "ready":
        sys.exit("the server did not start")
    make = getattr(oslo_messaging, "get_rpc_client", None) or oslo_messaging.RPCClient
    caller = make(transport(), oslo_messaging.Target(topic=topic), serializer=chain, timeout=60)
    call = lambda text: caller.call(context, "echo", text=text)
    obey(lambda callers, seconds: in_threads(call, callers, seconds))


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.ERROR)
    {"client": client, "server": server}[sys.argv[1]](*sys.argv[2:])
