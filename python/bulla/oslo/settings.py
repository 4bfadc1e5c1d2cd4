"""The section ``[bulla]``. What can't be right stops the service: nothing is ever off in silence."""

import datetime
import re

from oslo_config import cfg

GROUP = "bulla"
LONGEST = datetime.timedelta(days=90)

OPTS = [
    cfg.StrOpt("key_file", help="The key file of this service or agent. Required."),
    cfg.StrOpt(
        "bus",
        secret=True,
        help="amqp:// or amqps:// URL of the deployment's own bus (directory, revocation, renewal); "
        "what the key file says unless set.",
    ),
    cfg.DictOpt(
        "topics",
        default={},
        help="Who is behind a topic: TOPIC:PRINCIPAL, or TOPIC@SERVER:PRINCIPAL for one server of a "
        "topic. One * on either side stands for the same text, as in guestagent.*:agent/*. Topics "
        "agent.<id> and component.<type> need no entry.",
    ),
    cfg.DictOpt("fanouts", default={}, help="The group behind a topic's fanouts: TOPIC:GROUP."),
    cfg.StrOpt("send", default="sealed", help="`sealed`, or `plain` until send_plain_until."),
    cfg.StrOpt("send_plain_until", help="When `send = plain` ends: 2026-12-31T12:00:00Z."),
    cfg.StrOpt("accept", default="sealed", help="`sealed`, or `both` until accept_plain_until."),
    cfg.StrOpt("accept_plain_until", help="When `accept = both` ends: 2026-12-31T12:00:00Z."),
    cfg.ListOpt(
        "open_to_agents",
        default=[],
        help="Methods of this component (namespace.method) that agents may call, until a policy says "
        "otherwise; * for all.",
    ),
    cfg.ListOpt("open_to_components", default=[], help="The same for other components."),
    cfg.StrOpt(
        "claims",
        help="Where it is remembered what ran: a folder (beside the key file unless set), the address "
        "of a store that several processes share (redis://…), or `memory`.",
    ),
    cfg.BoolOpt(
        "only_host",
        default=False,
        help="No other process serves this component: claims need not be shared.",
    ),
    cfg.IntOpt("concurrency", default=256, min=1, help="Methods that run at a time at the most."),
    cfg.IntOpt(
        "cast_life",
        default=86400,
        min=1,
        max=86400,
        help="How long a cast may wait for its receiver, in seconds.",
    ),
    cfg.BoolOpt(
        "tell_tracebacks",
        default=False,
        help="Whether callers are told where in the code an exception came from.",
    ),
]


def list_opts():
    return [(GROUP, OPTS)]


class Mistake(cfg.ConfigFileValueError):
    """A setting in [bulla] that can't be right."""


class Settings:
    """The section, checked."""

    def __init__(self, conf):
        conf.register_opts(OPTS, group=GROUP)
        _refuse_unknown(conf)
        section = conf[GROUP]
        if not section.key_file:
            raise Mistake("[bulla] key_file is missing: the transport is bulla+rabbit, which needs one")
        self.key_file = section.key_file
        self.bus = section.bus
        self.topics = Topics(section.topics)
        self.fanouts = {topic: _group(group) for topic, group in section.fanouts.items()}
        self.send_plain = _choice(section, "send", "plain", "send_plain_until")
        self.accept_plain = _choice(section, "accept", "both", "accept_plain_until")
        self.open_to_agents = section.open_to_agents
        self.open_to_components = section.open_to_components
        self.claims = section.claims
        self.only_host = section.only_host
        self.concurrency = section.concurrency
        self.cast_life = section.cast_life
        self.tell_tracebacks = section.tell_tracebacks


class Until:
    """An allowance with an end."""

    def __init__(self, end):
        self.end = end

    def __bool__(self):
        return self.end is not None and datetime.datetime.now(datetime.timezone.utc) < self.end


def _choice(section, name, other, until):
    choice, end = section[name], section[until]
    if choice == "sealed":
        if end:
            raise Mistake(f"[bulla] {until} is set, but {name} = sealed: take one of them away")
        return Until(None)
    if choice != other:
        raise Mistake(f"[bulla] {name} = {choice!r}: it is `sealed` or `{other}`")
    if not end:
        raise Mistake(f"[bulla] {name} = {other} needs an end: set {until}, at most 90 days ahead")
    try:
        end = datetime.datetime.fromisoformat(end)
    except ValueError:
        raise Mistake(f"[bulla] {until} = {end!r} is no time; write 2026-12-31T12:00:00Z") from None
    if end.tzinfo is None:
        raise Mistake(f"[bulla] {until} needs a time zone: write 2026-12-31T12:00:00Z")
    if end > datetime.datetime.now(datetime.timezone.utc) + LONGEST:
        raise Mistake(f"[bulla] {until} is more than 90 days ahead")
    return Until(end)


def _group(name):
    return name.removeprefix("group/")


class Topics:
    """Who is behind which topic."""

    def __init__(self, entries):
        self._entries = []
        for pattern, principal in entries.items():
            if not re.fullmatch(r"(agent|component)/[A-Za-z0-9_.*-]+", principal):
                raise Mistake(
                    f"[bulla] topics: `{principal}` is not agent/<id> or component/<type>"
                )
            if pattern.count("*") > 1 or pattern.count("*") != principal.count("*"):
                raise Mistake(f"[bulla] topics: `{pattern}:{principal}`: one * on both sides, or none")
            expression = "([A-Za-z0-9_.-]+)".join(map(re.escape, pattern.split("*")))
            self._entries.append((re.compile(expression), principal))
        # What has no * goes first.
        self._entries.sort(key=lambda entry: "*" in entry[1])

    def principal(self, topic, server=None):
        """Who is behind it; None if nobody is known to be."""
        if server is not None:
            directed = self._match(f"{topic}@{server}")
            if directed:
                return directed
        found = self._match(topic)
        if found:
            return found
        kind, dot, name = topic.partition(".")
        if dot and kind in ("agent", "component") and re.fullmatch(r"[A-Za-z0-9_~-]+", name):
            return f"{kind}/{name.replace('~', '.')}"
        return None

    def _match(self, text):
        for expression, principal in self._entries:
            match = expression.fullmatch(text)
            if match:
                return principal.replace("*", match.group(1)) if match.groups() else principal
        return None


def _refuse_unknown(conf):
    """oslo.config passes over what it does not know; a slip of the pen must not pass here."""
    known = {opt.name for opt in OPTS}
    files = getattr(conf, "config_file", None) or []
    for path in [files] if isinstance(files, str) else files:
        sections = {}
        try:
            cfg.ConfigParser(path, sections).parse()
        except OSError as error:
            raise Mistake(f"{path} can't be read: {error}") from error
        for name in sections.get(GROUP, {}):
            if name.replace("-", "_") not in known:
                raise Mistake(f"[bulla] has no setting `{name}` ({path})")
