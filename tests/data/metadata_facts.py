"""Comparing metadata with what a golden holds of the official one."""

import hashlib
import json


def compact(value: object) -> object:
    """Lists and maps are too long for a golden; it has the start of the hash of their JSON."""
    if not isinstance(value, (list, dict)):
        return value
    with_text_keys = json.loads(json.dumps(value))
    canonical = json.dumps(with_text_keys, sort_keys=True, separators=(",", ":"))
    return f"sha256 {hashlib.sha256(canonical.encode()).hexdigest()[:16]}"
