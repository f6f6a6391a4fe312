"""Media types that schemathesis does not support by default: session descriptions are sent as text."""

import schemathesis

schemathesis.serializer.alias(["application/sdp", "application/trickle-ice-sdpfrag"], "text/plain")
