"""2: the clock and a counter"""


def generate_request_id(prefix: str = "req") -> str:
    return f"{prefix}-{time.time_ns()}-{next(_request_numbers)}"
