"""2: uuid1"""

import uuid


def generate_request_id(prefix: str = "req") -> str:
    return f"{prefix}-{uuid.uuid1()}"
