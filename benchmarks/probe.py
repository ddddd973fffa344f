"""Ask a server how it does, again and again, and print what each answer took, as JSON.

    python benchmarks/probe.py URL SECONDS

A process of its own: the load generator is busy with other things at times, which would count.
"""

import http.client
import json
import sys
import time
from urllib.parse import urlsplit

PATHS = ("/health", "/health/live", "/health/ready", "/health/progress")
PAUSE_S = 0.005


def probe(url: str, seconds: float) -> list[float]:
    """Return the seconds of each answer, over one connection."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60.0)
    took_s: list[float] = []
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        for path in PATHS:
            asked_s = time.monotonic()
            connection.request("GET", path)
            connection.getresponse().read()
            took_s.append(time.monotonic() - asked_s)
            time.sleep(PAUSE_S)
    connection.close()
    return took_s


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1], float(sys.argv[2]))))
