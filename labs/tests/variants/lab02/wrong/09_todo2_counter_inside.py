"""2 L2-2-SAME: makes its counter anew in each call"""


def generate_request_id(prefix: str = "req") -> str:
    counter = itertools.count(1)
    return f"{prefix}-{next(counter)}"
