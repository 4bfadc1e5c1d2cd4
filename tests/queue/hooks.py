"""What schemathesis does not know: the media types of the queue service are JSON."""

import json

import schemathesis

PATCH = "application/openstack-messaging-v2.0-json-patch"


@schemathesis.serializer(PATCH)
def patch(context, value):
    return json.dumps(value).encode()


@schemathesis.deserializer("application/json-home")
def home(context, response):
    return json.loads(response.content)
