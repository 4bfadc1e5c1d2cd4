"""The section [bulla]: what can't be right stops a service."""

import datetime

import pytest
from oslo_config import cfg

from bulla.oslo.settings import Mistake, Settings


def settings(tmp_path, *lines):
    path = tmp_path / "service.conf"
    path.write_text("\n".join(["[bulla]", *lines]) + "\n")
    conf = cfg.ConfigOpts()
    conf(["--config-file", str(path)], project="bulla-test")
    return Settings(conf)


def ahead(**delta):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**delta)).isoformat()


def test_sealed_unless_said_otherwise(tmp_path):
    made = settings(tmp_path, "key_file = a.key")
    assert not made.send_plain and not made.accept_plain
    made = settings(tmp_path, "key_file = a.key", "accept = both", f"accept_plain_until = {ahead(days=1)}")
    assert made.accept_plain and not made.send_plain


def test_an_allowance_ends(tmp_path):
    made = settings(tmp_path, "key_file = a.key", "accept = both", f"accept_plain_until = {ahead(days=-1)}")
    assert not made.accept_plain


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["key_file = a", "acept = both"],
        ["key_file = a", "accept = plain"],
        ["key_file = a", "accept = none"],
        ["key_file = a", "accept = both"],
        ["key_file = a", "accept = both", "accept_plain_until = soon"],
        ["key_file = a", "accept = both", "accept_plain_until = 2026-12-31T12:00:00"],
        ["key_file = a", "accept = both", "accept_plain_until = 2226-12-31T12:00:00Z"],
        ["key_file = a", "accept = sealed", "accept_plain_until = 2026-12-31T12:00:00Z"],
        ["key_file = a", "send = plain"],
        ["key_file = a", "send = both"],
        ["key_file = a", "topics = a:b"],
        ["key_file = a", "topics = a.*:agent/x"],
        ["key_file = a", "topics = a.*.*:agent/*"],
        ["key_file = a", "only_host = perhaps"],
    ],
)
def test_a_mistake_stops_the_service(tmp_path, lines):
    with pytest.raises((Mistake, cfg.ConfigFileValueError, ValueError)):
        settings(tmp_path, *lines)


def test_topics(tmp_path):
    line = "topics = conductor:component/conductor,guest.*:agent/*,compute@*:agent/*,guest.one:agent/other"
    topics = settings(tmp_path, "key_file = a", line).topics
    assert topics.principal("conductor") == "component/conductor"
    assert topics.principal("conductor", "host") == "component/conductor"
    assert topics.principal("guest.db-1") == "agent/db-1"
    assert topics.principal("guest.one") == "agent/other"
    assert topics.principal("compute", "host.1") == "agent/host.1"
    assert topics.principal("compute") is None
    assert topics.principal("agent.a~b") == "agent/a.b"
    for nobody in ("guest.", "xconductor", "guest.a/b", "agent.", "agent.a/b", "reply_1"):
        assert topics.principal(nobody) is None, nobody
