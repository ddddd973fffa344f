"""2 L2-2-CLOCK: date and time as text"""

from datetime import datetime


def generate_request_id(prefix: str = "req") -> str:
    return f"{prefix}-{datetime.now():%Y%m%d-%H%M%S}"
