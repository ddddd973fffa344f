"""2 L2-2-FORMAT: an id with spaces and brackets"""


def generate_request_id(prefix: str = "req") -> str:
    return f"{prefix}-({next(_request_numbers)}) of today"
