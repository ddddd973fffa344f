"""2: a counter for each prefix"""

import collections

_counts = collections.Counter()


def generate_request_id(prefix: str = "req") -> str:
    _counts[prefix] += 1
    return f"{prefix}-{_counts[prefix]}"
