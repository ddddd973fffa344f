"""Make the plan of a failure as small as it gets: take out whatever the failure does not need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

from tests.simulation.plan import Plan, RequestPlan


def shrink(plan: Plan, fails: Callable[[Plan], bool], max_tries: int = 400) -> Plan:
    """Return a smaller plan that fails still. Deterministic; tries so many plans at most."""
    num_tries = 0
    was_smaller = True
    while was_smaller:
        was_smaller = False
        for smaller in _smaller(plan):
            num_tries += 1
            if num_tries > max_tries:
                return plan
            if fails(smaller):
                plan, was_smaller = smaller, True
                break
    return plan


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with one thing less, the largest things first."""
    for index in range(len(plan.orders)):
        yield replace(plan, orders=plan.orders[:index] + plan.orders[index + 1 :])
    for index in range(len(plan.faults)):
        yield replace(plan, faults=plan.faults[:index] + plan.faults[index + 1 :])
    if len(plan.requests) > 1:
        for index in range(len(plan.requests)):
            yield replace(plan, requests=plan.requests[:index] + plan.requests[index + 1 :])
    for index, request in enumerate(plan.requests):
        for simpler in _simpler(request):
            requests = (*plan.requests[:index], simpler, *plan.requests[index + 1 :])
            yield replace(plan, requests=requests)


PLAIN = RequestPlan(number=0, request_id="", at_s=0.0, prompt=(), seed=0, max_tokens=1)


def _simpler(request: RequestPlan) -> Iterator[RequestPlan]:
    """The request with one of its peculiarities less."""
    kept = {"number", "request_id", "prompt", "seed", "max_tokens"}
    for described in fields(RequestPlan):
        name = described.name
        if name not in kept and getattr(request, name) != getattr(PLAIN, name):
            # n goes together with the sequence that is poison.
            poison = {"poison": None} if name == "n" and request.poison is not None else {}
            yield replace(request, **{name: getattr(PLAIN, name), **poison})
