"""oslo.messaging over Bulla, by settings alone.

``transport_url = bulla+rabbit://…`` instead of ``rabbit://…``, and a section ``[bulla]`` that names a key
file: then every message of a service is sealed as a whole, and what is not is refused. The real rabbit
driver does the transport. See ``docs/migrate-openstack.md``.
"""
