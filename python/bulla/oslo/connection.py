"""The rabbit driver's connection, with less work around each message.

It publishes, consumes, confirms, reconnects and beats as it is. What is different: what a socket has is read at
once, and not by seven bytes and one; the machinery for reconnecting is set up when something failed, and not
for each message; and a sealed body goes in and out as it is, since nothing in Python believes it anyway.
"""

import functools
import os
import socket
import time

import kombu.messaging
from oslo_messaging import exceptions
from oslo_messaging._drivers import amqp, common, impl_rabbit

# Bytes that are read from a socket at once.
AHEAD = 16 << 10
# Methods of the broker's that are read before a listener is told what came.
AT_ONCE = 32
# Seconds between two looks at the heartbeat, as kombu recommends.
BEAT = 1.0


class Encoded(bytes):
    """A body in the form of the bus, JSON already."""


class Producer(kombu.messaging.Producer):
    """Takes bodies that are encoded already."""

    def _prepare(self, body, serializer=None, content_type=None, content_encoding=None, *more, **named):
        if isinstance(body, Encoded):
            content_type, content_encoding = "application/json", "utf-8"
        return super()._prepare(body, serializer, content_type, content_encoding, *more, **named)


class Connection(impl_rabbit.Connection):
    """A connection for sending, or for taking messages."""

    _failed = None
    _timed = None
    _beaten = 0.0

    def on_taken(self):
        """Called when everything that came at once was given to the callbacks. A listener puts its own here."""

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        if self.purpose == common.PURPOSE_LISTEN:
            self.connection.drain_events = self._drain

    def _set_current_channel(self, new_channel):
        if new_channel is self.channel:
            return
        super()._set_current_channel(new_channel)
        if self.channel is not None:
            _read_ahead(self.channel)
            self._producer = Producer(self.channel, on_return=self.on_return)

    def set_transport_socket_timeout(self, timeout=None):
        """Sets it where it is not set so already: around each call to the same, mostly."""
        wanted = timeout
        if self._heartbeat_supported_and_enabled():
            longest = self.heartbeat_timeout_threshold
            wanted = longest if timeout is None else min(longest, timeout)
        if self._timed != (self.channel, wanted):
            self._timed = None
            super().set_transport_socket_timeout(timeout)
            self._timed = self.channel, wanted

    # Sending.

    def _ensure_publishing(self, method, *args, **named):
        """Publishes; what failed is handled as the rabbit driver does, this try being the first."""
        if self.channel is None or self._initial_pid != os.getpid():
            return super()._ensure_publishing(method, *args, **named)
        try:
            with self._connection_lock:
                return _call(method, *args, **named)
        except (exceptions.MessageUndeliverable, amqp.AMQPDestinationNotFound):
            raise
        except Exception as error:
            first = [error]
        return super()._ensure_publishing(functools.partial(_again, first, method), *args, **named)

    # Taking.

    def declare_consumer(self, consumer):
        take = getattr(consumer.callback, "take_raw", None)
        # Where a stream's offset is noted, the rabbit driver has to see each message.
        if take is not None and not getattr(consumer, "rabbit_stream_fanout", False):
            consumer._callback = functools.partial(_give, take, consumer._callback)
        return super().declare_consumer(consumer)

    def consume(self, timeout=None):
        """Takes what came, or waits for it."""
        is_whole = self.channel is not None and self._initial_pid == os.getpid()
        if self._new_tags or not (is_whole and self.connection.connected):
            return super().consume(timeout)
        if self._consume_loop_stopped:
            return None
        try:
            with self._connection_lock:
                now = time.monotonic()
                if now - self._beaten >= BEAT and self._heartbeat_supported_and_enabled():
                    self._beaten = now
                    self._heartbeat_check()
                longest = self._poll_timeout
                return self._drain(longest if timeout is None else min(timeout, longest))
        except socket.timeout:
            raise common.Timeout() from None
        except Exception as error:
            # The rabbit driver finds it where it would have come, or that the line is gone.
            self._failed = error if self.connection.connected else None
        return super().consume(timeout)

    def _drain(self, timeout=None):
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        # Some may have come while consumers were told of to the broker.
        self.on_taken()
        connection = self.connection.connection
        connection.drain_events(timeout=timeout)
        try:
            for _ in range(AT_ONCE):
                if not _is_more(self.channel):
                    break
                connection.drain_events(timeout=timeout)
        finally:
            self.on_taken()


def _call(method, exchange, msg, routing_key=None, timeout=None, retry=None, transport_options=None):
    return method(exchange, msg, routing_key, timeout, transport_options)


def _again(first, method, *args):
    if first:
        raise first.pop()
    return method(*args)


def _give(take, otherwise, message):
    """Gives a message to who takes it as it is, or else makes of it what oslo.messaging does."""
    if (message.properties.get("application_headers") or {}).get("compression") or not take(message):
        otherwise(message)


def is_open(message):
    """Whether the line that a message came over is there. If not, the broker gives it out again."""
    return message.channel.connection is not None


def _read_ahead(channel):
    """Has the channel's connection read what its socket has: each read lets all other threads run first."""
    transport = getattr(channel.connection, "transport", None)
    receive = getattr(transport, "_quick_recv", None)
    if receive is None or isinstance(receive, functools.partial) or not hasattr(transport, "_read_buffer"):
        return
    transport._quick_recv = functools.partial(_receive, receive)


def _receive(receive, size):
    return receive(max(size, AHEAD))


def _is_more(channel):
    connection = getattr(channel, "connection", None)
    transport = getattr(connection, "_transport", None)
    # A frame's head: the rest of it is here, or on its way.
    return len(getattr(transport, "_read_buffer", None) or b"") >= 7
