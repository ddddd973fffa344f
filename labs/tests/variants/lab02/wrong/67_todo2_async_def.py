"""2 L2-2-ASYNC: makes it async def"""


async def generate_request_id(prefix: str = "req") -> str:
    return f"{prefix}-{next(_request_numbers)}"
