"""2: secrets"""

import secrets


def generate_request_id(prefix: str = "req") -> str:
    return f"{prefix}-{secrets.token_hex(8)}"
