"""Strikes a server's engines again and again, as its operator: used by `soak.py`."""

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from soak_client import BrokenPromiseError, Exchange

ADMIN_KEY = "soak"


class Striker:
    """Kills, stops and replaces engines."""

    def __init__(self, url: str, ways: Sequence[str], every_s: float, seed: int) -> None:
        """ways: "kill", "stop" or "restart", each as likely. every_s: on average."""
        self._url = url
        self._every_s = every_s
        self._ways = ways
        self._draw = random.Random(seed)
        self._struck: int | None = None
        self.strikes: Counter[str] = Counter()

    async def strike_each(self) -> None:
        """In each way once, as soon as there is an engine."""
        for way in dict.fromkeys(self._ways):
            await asyncio.sleep(self._draw.uniform(0.0, 0.5))
            await self._strike(way)

    async def strike_for(self, seconds: float) -> None:
        ends_s = time.monotonic() + seconds
        while True:
            pause_s = self._draw.uniform(0.5, 1.5) * self._every_s
            if time.monotonic() + pause_s > ends_s:
                return
            await asyncio.sleep(pause_s)
            await self._strike(self._draw.choice(self._ways))

    async def _strike(self, way: str) -> None:
        """Strike, and wait until another engine serves."""
        pid = await self._next_engine()
        self._struck = pid
        self.strikes[way] += 1
        if way == "restart":
            await get(self._url, "/admin/restart-engine", method="POST")
        else:
            os.kill(pid, signal.SIGKILL if way == "kill" else signal.SIGSTOP)
        await self._next_engine()

    async def _next_engine(self) -> int:
        """The one that serves, once that is another than was struck last."""
        while True:
            engine = await get(self._url, "/admin/engine")
            if engine["state"] == "serving" and engine["pid"] not in (None, self._struck):
                return int(engine["pid"])
            await asyncio.sleep(0.1)


async def get(url: str, path: str, method: str = "GET") -> Any:
    """Ask the server something as its operator."""
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with Exchange.of(url, method, path, headers=headers) as exchange:
        if await exchange.read_head() != 200:
            raise BrokenPromiseError(f"status {exchange.status} for {path}")
        return json.loads(await exchange.read())
