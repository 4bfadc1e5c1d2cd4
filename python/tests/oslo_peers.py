"""Services on oslo.messaging, with the driver by the transport's URL alone."""

import contextlib
import importlib
import itertools
import pathlib

import oslo_messaging
from oslo_config import cfg

TOPICS = "trove-conductor:component/conductor,trove-taskmanager:component/taskmanager,guestagent.*:agent/*"
_numbers = itertools.count()


def settings(folder, amqp, key, exchange="openstack", **more):
    """A configuration object as a service's main makes one: of a file."""
    path = pathlib.Path(folder) / f"service-{next(_numbers)}.conf"
    scheme = "bulla+rabbit" if key else "rabbit"
    url = amqp.replace("amqp://", f"{scheme}://", 1)
    lines = ["[DEFAULT]", f"transport_url = {url}", f"control_exchange = {exchange}"]
    lines += [f"rpc_response_timeout = {more.pop('response_timeout', 20)}"]
    lines += ["[oslo_messaging_rabbit]"]
    lines += [f"{name} = {value}" for name, value in more.pop("rabbit", {}).items()]
    if key:
        lines += ["[bulla]", f"key_file = {key}"]
        more.setdefault("topics", TOPICS)
        lines += [f"{name} = {value}" for name, value in more.items()]
    path.write_text("\n".join(lines) + "\n")
    return open_settings(path)


def open_settings(path):
    conf = cfg.ConfigOpts()
    conf(["--config-file", str(path)], project="bulla-test")
    _register_globals(conf)
    return conf


def _register_globals(conf):
    """oslo.messaging registers some options on the global object alone."""
    for name in ("metrics", "tracing"):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(f"oslo_messaging._{name}.client")
            group = f"oslo_messaging_{name}"
            conf.register_opts(getattr(module, group), group=group)


def transport(conf, exmods=()):
    return oslo_messaging.get_rpc_transport(conf, allowed_remote_exmods=list(exmods))


def client(carrier, topic, namespace=None, version="1.0", server=None, fanout=None, **more):
    target = oslo_messaging.Target(
        topic=topic, namespace=namespace, version=version, server=server, fanout=fanout
    )
    make = getattr(oslo_messaging, "get_rpc_client", None) or oslo_messaging.RPCClient
    return make(carrier, target, **more)


def server(carrier, topic, endpoints, name="host-1", executor="threading", **more):
    target = oslo_messaging.Target(topic=topic, server=name)
    access = oslo_messaging.DefaultRPCAccessPolicy
    made = oslo_messaging.get_rpc_server(
        carrier, target, endpoints, executor=executor, access_policy=access, **more
    )
    made.start()
    return made


def stop(made):
    made.stop()
    made.wait()
