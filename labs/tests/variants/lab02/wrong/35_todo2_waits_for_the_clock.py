"""2 L2-2-SPIN: waits until the clock has moved on"""

_last = 0.0


def generate_request_id(prefix: str = "req") -> str:
    global _last
    while time.time() == _last:
        pass
    _last = time.time()
    return f"{prefix}-{_last:.9f}"
