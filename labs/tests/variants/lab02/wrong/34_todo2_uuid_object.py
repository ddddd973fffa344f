"""2 L2-2-TYPE: returns the UUID object"""

import uuid


def generate_request_id(prefix: str = "req") -> str:
    return uuid.uuid4()
