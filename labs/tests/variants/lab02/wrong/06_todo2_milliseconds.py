"""2 L2-2-CLOCK: a clock in milliseconds"""


def generate_request_id(prefix: str = "req") -> str:
    return f"{prefix}-{int(time.time() * 1000)}"
