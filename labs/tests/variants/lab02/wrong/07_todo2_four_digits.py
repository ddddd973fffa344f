"""2 L2-2-RANDOM: four random digits, to look like the sample"""

import random


def generate_request_id(prefix: str = "req") -> str:
    return f"{prefix}-{random.randint(1000, 9999)}"
