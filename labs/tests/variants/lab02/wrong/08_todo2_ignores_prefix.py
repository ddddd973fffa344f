"""2 L2-2-PREFIX: ignores the prefix"""


def generate_request_id(prefix: str = "req") -> str:
    return f"req-{next(_request_numbers)}"
