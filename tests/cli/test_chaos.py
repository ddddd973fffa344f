"""`wheelpit chaos` against a real server whose engine process has a fake model."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.command import run
from tests.cli.served import Start, announcement
from wheelpit.bench.chaos import Damage, compare


@pytest.mark.parametrize(
    ("got", "damage"),
    [
        ([1, 2, 3, 4, 5], Damage()),
        ([1, 2, 3], Damage(lost=2)),
        ([], Damage(lost=5)),
        ([1, 2, 4, 5], Damage(lost=1)),
        ([1, 2, 3, 3, 4, 5], Damage(duplicated=1)),
        ([1, 2, 3, 2, 3, 4, 5], Damage(duplicated=2)),
        ([1, 2, 9, 4, 5], Damage(altered=1)),
        ([1, 2, 9, 3, 4, 5], Damage(altered=1)),
        ([1, 2, 3, 4, 5, 6], Damage(altered=1)),
    ],
)
def test_every_kind_of_damage_is_told_apart(got: list[int], damage: Damage) -> None:
    assert compare([1, 2, 3, 4, 5], got) == damage


SERVED = ("--port", "0", "--admin-key", "root", "--max-restarts", "1000")


def url_of(lines: list[str]) -> str:
    match = re.search(r"at (http://\S+)/v1", "\n".join(lines))
    assert match is not None
    return match[1]


@pytest.mark.timeout(300)  # many engines start, on a machine that may be busy
def test_killed_and_stopped_engines_cost_no_token(start: Start) -> None:
    process = start(*SERVED, "--engine-stall-timeout", "0.3")
    url = url_of(announcement(process))
    limits = ("--streams", "4", "--tokens", "100", "--seconds", "2", "--kill-every", "0.4")
    done = run("chaos", "--url", url, "--admin-key", "root", *limits)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["num_kills"] + report["num_stops"] >= 1
    assert report["num_restarts"] >= 1
    assert report["num_answers"] >= 4
    names = ("lost_tokens", "duplicated_tokens", "altered_tokens", "num_incomplete")
    assert [report[name] for name in names] == [0] * 4
    assert report["is_comparable"]
    assert re.search(r"tokens lost +0\n", done.stdout)


def test_a_server_without_an_admin_key_is_told_in_one_line(start: Start) -> None:
    url = url_of(announcement(start("--port", "0")))
    done = run("chaos", "--url", url, "--admin-key", "root")
    assert done.returncode == 1
    assert "server answers 404 to /admin/engine: start it with --admin-key KEY" in done.stderr


def test_a_server_that_fails_on_purpose_says_so_loudly(start: Start) -> None:
    process = start(*SERVED, "--chaos", "kill=0.01,slow=0.2")
    announcement(process)
    process.terminate()
    _, errors = process.end(timeout=30)
    assert "--chaos kill=0.01,slow=0.2: the engine WILL FAIL ON PURPOSE" in errors
    assert "--max-restarts" in errors


@pytest.mark.parametrize(
    "wrong", [("--url", "https://x"), ("--ways", "shoot"), ("--kill-every", "0")]
)
def test_wrong_flags_end_with_status_2(wrong: tuple[str, str]) -> None:
    done = run("chaos", "--admin-key", "root", *wrong)
    assert done.returncode == 2
