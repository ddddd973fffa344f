"""For all tests."""

import signal
from pathlib import Path

import pytest

# A job in the background of a shell ignores Ctrl-C, and so would every process that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kernel_library() -> Path:
    """The compiled kernels, where they can be had."""
    from wheelpit.kernels.build import start_build

    build = start_build()
    found = build.wait()
    if found is None:
        pytest.skip(build.reason)
    return found
