"""What came under seal, as oslo.messaging's dispatchers know it."""

import logging

from oslo_messaging._drivers import amqpdriver, base
from oslo_serialization import jsonutils

from bulla.oslo import failures, waiting
from bulla.oslo.connection import Encoded

LOG = logging.getLogger(__name__)


class SealedIncoming(amqpdriver.AMQPIncomingMessage):
    """A request whose sender is proven, that may run, and has not run before."""

    def __init__(self, listener, job):
        reply_q, msg_id, timeout = job.way or (None, None, None)
        message = {"method": job.method, "args": job.args() or {}, "version": job.version}
        if job.namespace is not None:
            message["namespace"] = job.namespace
        super().__init__(
            listener,
            job.context() or {},
            message,
            job.message_id,
            msg_id,
            reply_q,
            timeout,
            listener._obsolete_reply_queues,
            listener._message_operations_handler,
        )
        self.sender = job.sender
        self._job = job

    def reply(self, reply=None, failure=None):
        answer = self._end(reply, failure)
        waiting.until(answer.done, answer.wait, answer.fileno)
        body = answer.body()
        if body is not None:
            super().reply(Encoded(body), None)

    def _send_reply(self, conn, reply=None, failure=None, ending=True):
        conn.direct_send(self.reply_q, reply)

    def _end(self, reply, failure):
        to_primitive = jsonutils.to_primitive
        if failure:
            tell = self.listener.driver.settings.tell_tracebacks
            kind, message, details, trace = failures.describe(failure, tell)
            return self._job.fail(kind, message, details, trace, to_primitive)
        try:
            return self._job.finish(reply, to_primitive)
        except (TypeError, ValueError, OverflowError) as error:
            LOG.error("The result of %s can't be sent: %s", self._job.method, error)
            return self._job.fail("InternalError", "the method's result can't be sent")

    def heartbeat(self):
        self._job.progress()


class SealedNotification(base.IncomingMessage):
    """A notification whose sender is proven, and that was not taken before."""

    def __init__(self, listener, job):
        super().__init__(job.context() or {}, job.args() or {})
        self.sender = job.sender
        self._listener, self._job = listener, job

    def acknowledge(self):
        self._job.finish()

    def requeue(self):
        # The bus was told already: it comes again from here.
        self._listener.again(self)
