"""Names a set of pictures by their bytes, alike in training and on devices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def fingerprint(digests: Mapping[str, str]) -> str:
    """Give one sha256 over the sorted (name, sha256) of pictures."""
    lines = (f"{name}\0{digest}\n" for name, digest in sorted(digests.items()))
    # A file's name need not be valid text; its bytes are taken as they are.
    text = "".join(lines).encode(errors="surrogateescape")
    return hashlib.sha256(text).hexdigest()
