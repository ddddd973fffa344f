"""2: the first eight digits of uuid4"""

import uuid


def generate_request_id(prefix: str = "req") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"
