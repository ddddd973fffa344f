"""2: a global counter"""

_count = 1000


def generate_request_id(prefix: str = "req") -> str:
    global _count
    _count += 1
    return f"{prefix}-{_count}"
