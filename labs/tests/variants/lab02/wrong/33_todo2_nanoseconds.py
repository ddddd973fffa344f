"""2 L2-2-CLOCK: a clock in nanoseconds, which passes any quick look"""


def generate_request_id(prefix: str = "req") -> str:
    return f"{prefix}-{time.perf_counter_ns()}"
