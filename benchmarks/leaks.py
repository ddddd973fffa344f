"""What a process holds, counted by name, so that two moments of its life can be compared.

Two counts complete each other. `sizes_of` walks from some roots through everything that Python
objects refer to and names each container by the way to it, as in `server.app.state.service.live.
_requests`: a difference says where to look. `count_objects` counts all that the garbage collector
knows, by type: what it finds need not be reachable from anywhere we thought of.
"""

import asyncio
import ctypes
import gc
import logging
import os
import re
import sys
import types
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Barrier, Thread

CONTAINERS = (dict, list, tuple, set, frozenset, deque)

OPAQUE = (
    *(str, bytes, bytearray, int, float, complex, type(None)),
    *(types.ModuleType, types.CodeType, types.FrameType, types.BuiltinFunctionType),
    *(weakref.ref, Thread, logging.Logger),
)
"""Nothing of interest is behind these. A frame's variables are the walker's own, or a task's, and
tasks are counted."""

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Difference:
    """Something there is more of, or less, than before."""

    name: str
    before: int
    after: int


def differences(
    before: Mapping[str, int], after: Mapping[str, int], tolerances: Mapping[str, int]
) -> list[Difference]:
    """Compare two counts; what is not in one of them counts 0 there.

    tolerances: by how much the later may be larger. It may be smaller by any number then; what has
    no tolerance must be equal.
    """
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, 0), after.get(name, 0)
        tolerance = tolerances.get(name)
        if new != old if tolerance is None else new > old + tolerance:
            found.append(Difference(name, old, new))
    return found


# --- containers, by the way to them


def sizes_of(roots: Mapping[str, object], package: str) -> dict[str, int]:
    """The sizes of all containers that can be reached, by the first way that leads to them.

    All elements of a container have one name, so the sizes of lists in a list are one sum. Of
    classes and modules, those of the package are looked into; of functions, what they close over.
    """
    sizes: Counter[str] = Counter()
    seen: set[int] = set()
    # Keeps what was made on the way, such as bound methods: another must not get its id.
    nodes: list[object] = []
    ahead: deque[tuple[str, object]] = deque(roots.items())
    for name, module in list(sys.modules.items()):
        if _is_of(package, name):
            ahead.append((name, vars(module)))
    while ahead:
        name, node = ahead.popleft()
        if id(node) in seen or isinstance(node, OPAQUE):
            continue
        if isinstance(node, type) and not _is_of(package, node.__module__):
            continue
        seen.add(id(node))
        nodes.append(node)
        if isinstance(node, CONTAINERS):
            sizes[name] += len(node)
        elif hasattr(node, "cache_info") and callable(node):
            sizes[name] += node.cache_info().currsize
        ahead.extend((name + way, child) for way, child in _children(node))
    return dict(sizes)


def _is_of(package: str, module: str) -> bool:
    return module.partition(".")[0] == package


def _children(node: object) -> Iterator[tuple[str, object]]:
    """What an object refers to, each with the way to it."""
    match node:
        case dict():
            for key, value in node.items():
                yield "[]", value
                yield "[key]", key
        case list() | tuple() | set() | frozenset() | deque():
            for element in node:
                yield "[]", element
        case type():
            for name, value in vars(node).items():
                # An abstract class remembers whom it was asked about.
                is_plain = not isinstance(value, types.FunctionType | classmethod | staticmethod)
                if is_plain and name != "_abc_impl":
                    yield f".{name}", value
        case types.FunctionType():
            names = node.__code__.co_freevars
            yield from _cells(names, node.__closure__ or ())
        case types.MethodType():
            yield ".__self__", node.__self__
        case partial():
            yield "()", node.func
            yield "()", node.args
            yield "()", node.keywords
    if not isinstance(node, type | types.FunctionType | types.MethodType):
        yield from _attributes(node)


def _attributes(node: object) -> Iterator[tuple[str, object]]:
    """Those of `__dict__` and `__slots__`; of what is written in C, whatever it refers to."""
    is_known = isinstance(node, CONTAINERS)
    attributes = getattr(node, "__dict__", None)
    if isinstance(attributes, dict):
        is_known = True
        for name, value in list(attributes.items()):
            yield f".{name}", value
    for kind in type(node).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType):
                is_known = True
                try:
                    yield f".{name}", member.__get__(node)
                except AttributeError:
                    pass  # never assigned
    if not is_known:
        for child in gc.get_referents(node):
            if child is not type(node):
                yield ".*", child


def _cells(
    names: tuple[str, ...], cells: tuple[types.CellType, ...]
) -> Iterator[tuple[str, object]]:
    for name, cell in zip(names, cells, strict=True):
        try:
            yield f".<{name}>", cell.cell_contents
        except ValueError:
            pass  # empty so far


# --- all objects, by type


def count_objects() -> dict[str, int]:
    """How many objects there are of each type that the garbage collector knows."""
    gc.collect()
    counts = Counter(map(type, gc.get_objects()))
    named: Counter[str] = Counter()
    for kind, count in counts.items():
        named[f"{kind.__module__}.{kind.__qualname__}"] += count
    return dict(named)


def count_waits() -> dict[str, int]:
    """The running loop's tasks and its timers, by what they run."""
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    tasks = [
        f"task {each.__qualname__ if isinstance(each, types.CoroutineType) else type(each)}"
        for each in coroutines
    ]
    timers = [
        # uvloop's tells what it calls in no other way.
        re.sub(r"^<TimerHandle( when=\S+)?|( at .*)?>$", "timer", repr(each), count=1)
        for each in gc.get_objects()
        if type(each).__name__ == "TimerHandle" and not each.cancelled()
    ]
    return dict(Counter([*tasks, *timers]))


# --- what the system keeps for a process


def count_files(pid: int) -> int:
    """Open file descriptors."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def count_threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def rss_bytes(pid: int) -> int:
    """Memory that is there at present."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def descendants_of(pid: int) -> list[int]:
    """Its child processes and theirs, those that nobody has waited for included."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended just now
        parents[int(folder.name)] = parent
    found: list[int] = []
    ahead = {pid}
    while ahead:
        ahead = {child for child, parent in parents.items() if parent in ahead}
        found += ahead
    return found


# --- making two moments comparable


def give_back_memory() -> None:
    """Collect garbage and return freed memory to the system: what is left is in use."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def fill_pools() -> None:
    """Have every thread pool start all of its threads.

    A pool starts a thread when none is idle, up to a bound, and keeps it: without this, the number
    of threads would depend on how much happened at once so far.
    """
    # Not isinstance(), which asks some objects for their class, and they warn of being deprecated.
    pools = [each for each in gc.get_objects() if issubclass(type(each), ThreadPoolExecutor)]
    for pool in pools:
        if pool._shutdown:
            continue
        wait_for_all: Callable[[], int] = Barrier(pool._max_workers).wait
        futures = [pool.submit(wait_for_all) for _ in range(pool._max_workers)]
        for future in futures:
            future.result(60)
