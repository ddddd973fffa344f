"""A stand-in server for the commands that talk to one."""

from collections.abc import Iterator

import pytest

from tests.cli.fake_server import FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.close()
