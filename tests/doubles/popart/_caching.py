"""The key of the cache of programs: what PopART's hash sees, and nothing else."""

import hashlib

from popart import _models
from popart._contract import RULES

UNSEEN = ("defaultBufferingDepth", "instrumentWithHardwareCycleCounter")
"""Options that a cached program brings along, as they are not in its hash."""


def key(model, options, device, flow, more):
    """Return the hash of a program as PopART makes it.

    Constants count by their names and shapes, numbers among attributes by six decimals, and
    options where `hash<SessionOptions>` has them.
    """
    seen = [(name, repr(getattr(options, name))) for name in RULES["session_options_hashed"]]
    text = [_models.as_hashed(model), repr((
        seen, device.numIpus, device.version, flow.batchesPerStep(),
        [(name, flow.art(name).id()) for name in flow.anchors()], more)).encode()]
    return str(int(hashlib.sha256(b"".join(text)).hexdigest()[:15], 16))


def unseen(options):
    return {name: getattr(options, name) for name in UNSEEN}
