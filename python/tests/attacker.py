"""Who holds the broker's credentials and no key: reads queues, publishes anything, re-routes."""

import base64
import json
import time
import uuid

import amqp
import kombu

ENVELOPE = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2}


class Attacker:
    def __init__(self, url):
        self._connection = kombu.Connection(url)
        self.channel = self._connection.channel()

    def sniff(self, exchange, key):
        """Copies of what passes an exchange from now on."""
        queue = f"sniffed-{uuid.uuid4().hex}"
        self.channel.queue_declare(queue, exclusive=True)
        self.channel.queue_bind(queue, exchange, key)
        return Sniffed(self.channel, queue)

    def steal(self, queue):
        """Takes what comes to a queue before its owner does."""
        taken = []
        self.channel.basic_consume(
            queue, callback=taken.append, no_ack=True, arguments={"x-priority": 100}
        )
        return Stolen(self._connection, taken)

    def publish(self, exchange, key, body, **properties):
        message = amqp.Message(body, **{**ENVELOPE, **properties})
        self.channel.basic_publish(message, exchange=exchange, routing_key=key)

    def plain(self, exchange, key, method, args, context=None, **more):
        """An ordinary oslo.messaging request in clear."""
        inner = {"method": method, "args": args, "version": "1.0", "_unique_id": uuid.uuid4().hex}
        inner.update({f"_context_{name}": value for name, value in (context or {}).items()})
        self.publish(exchange, key, enveloped({**inner, **more}))

    def close(self):
        self._connection.close()


class Sniffed:
    def __init__(self, channel, queue):
        self._channel, self._queue = channel, queue

    def next(self, seconds=10):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = self._channel.basic_get(self._queue, no_ack=True)
            if message is not None:
                return message.body if isinstance(message.body, bytes) else message.body.encode()
            time.sleep(0.01)
        raise AssertionError("nothing passed")

    def rest(self):
        time.sleep(0.2)
        messages = []
        while (message := self._channel.basic_get(self._queue, no_ack=True)) is not None:
            messages.append(message.body if isinstance(message.body, bytes) else message.body.encode())
        return messages


class Stolen:
    def __init__(self, connection, taken):
        self._connection, self._taken = connection, taken

    def next(self, seconds=10):
        end = time.monotonic() + seconds
        while not self._taken and time.monotonic() < end:
            try:
                self._connection.drain_events(timeout=0.1)
            except OSError:
                pass
        assert self._taken, "nothing came"
        body = self._taken.pop(0).body
        return body if isinstance(body, bytes) else body.encode()


def enveloped(inner):
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(inner)})


def inner_of(body):
    return json.loads(json.loads(body)["oslo.message"])


def with_changes(body, **changes):
    """The same message with other members."""
    return enveloped({**inner_of(body), **changes})


def again(body):
    """The same message as the driver would tell it from the first."""
    changes = {"_unique_id": uuid.uuid4().hex}
    if "_msg_id" in inner_of(body):
        changes["_msg_id"] = uuid.uuid4().hex
    return with_changes(body, **changes)


def frame_of(body):
    inner = inner_of(body)
    sealed = inner["bulla"] if "bulla" in inner else inner["result"]["bulla"]
    return base64.b64decode(sealed)


def with_frame(body, frame):
    sealed = base64.b64encode(frame).decode()
    inner = inner_of(body)
    if "bulla" in inner:
        return with_changes(again(body), bulla=sealed)
    return with_changes(again(body), result={"bulla": sealed})


def everything_readable(body):
    """All that a reader of the bus can see of a message: its text, and what base64 in it stands for."""
    return body + b"\n" + frame_of(body)
