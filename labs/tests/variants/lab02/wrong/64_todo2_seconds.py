"""2 L2-2-CLOCK: a clock in whole seconds: all ids of a test are the same"""


def generate_request_id(prefix: str = "req") -> str:
    return f"{prefix}-{int(time.time())}"
