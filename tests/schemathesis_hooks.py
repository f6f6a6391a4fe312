"""What schemathesis does not know by itself: session descriptions go over the wire as text."""

import schemathesis

schemathesis.serializer.alias(["application/sdp", "application/trickle-ice-sdpfrag"], "text/plain")
