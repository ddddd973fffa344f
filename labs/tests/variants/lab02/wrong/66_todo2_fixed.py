"""2 L2-2-SAME: always the same id"""


def generate_request_id(prefix: str = "req") -> str:
    return f"{prefix}-1234"
