"""The machine a measurement ran on, and how much of it others took meanwhile (from /proc)."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def describe_machine() -> dict[str, object]:
    """Return processor, cores, the flags that matter here, memory and system versions."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    flags = fields.get("flags", "").split()
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": fields.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in CPU_FLAGS if flag in flags],
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Processor seconds so far: of the whole machine, of a server's processes, of this process."""

    busy_s: float
    steal_s: float
    server_s: float
    client_s: float
    wall_s: float

    @classmethod
    def now(cls, session_id: int) -> "CpuTimes":
        """Read the counters; the server is every process of the session, those that ended too."""
        ticks = os.sysconf("SC_CLK_TCK")
        counters = [int(c) for c in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, system, _idle, _wait, irq, softirq, steal = counters
        server_ticks = sum(
            sum(int(field) for field in fields[11:15]) for fields in _session_stats(session_id)
        )
        own = os.times()
        return cls(
            busy_s=(user + nice + system + irq + softirq) / ticks,
            steal_s=steal / ticks,
            server_s=server_ticks / ticks,
            client_s=own.user + own.system,
            wall_s=own.elapsed,
        )

    def others_since(self, before: "CpuTimes") -> float:
        """Return how many cores neighbours and the host took on average since `before`."""
        ours_s = self.server_s - before.server_s + self.client_s - before.client_s
        taken_s = self.busy_s - before.busy_s + self.steal_s - before.steal_s - ours_s
        return max(0.0, taken_s) / max(1e-9, self.wall_s - before.wall_s)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a server's processes, in MiB.

    `peak_rss` adds up each process's own peak, so that it counts shared pages once a process;
    `pss` is what they hold now, shared pages divided among their holders.
    """

    peak_rss_mib: float
    pss_mib: float

    @classmethod
    def of_session(cls, session_id: int) -> "Memory":
        """Read the memory of every process of the session."""
        peak_kib = pss_kib = 0
        for process_id in session_processes(session_id):
            peak_kib += _kib_field(Path(f"/proc/{process_id}/status"), "VmHWM:")
            pss_kib += _kib_field(Path(f"/proc/{process_id}/smaps_rollup"), "Pss:")
        return cls(round(peak_kib / 1024, 1), round(pss_kib / 1024, 1))


def set_niceness(process_id: int, nice: int) -> None:
    """Set the niceness of a process's whole session: none of its processes goes before another.

    With autogroups a process's own niceness counts only within its session.
    """
    if has_autogroups():
        Path(f"/proc/{process_id}/autogroup").write_text(str(nice))
        return
    for member in session_processes(os.getsid(process_id)):
        os.setpriority(os.PRIO_PROCESS, member, nice)


def has_autogroups() -> bool:
    try:
        return Path("/proc/sys/kernel/sched_autogroup_enabled").read_text().strip() == "1"
    except FileNotFoundError:
        return False


def session_processes(session_id: int) -> list[int]:
    """Return the ids of the processes that run in a session."""
    found = []
    for entry in Path("/proc").iterdir():
        fields = _stat_fields(entry) if entry.name.isdecimal() else None
        if fields is not None and int(fields[3]) == session_id:
            found.append(int(entry.name))
    return found


def _session_stats(session_id: int) -> list[list[str]]:
    stats = (_stat_fields(Path(f"/proc/{pid}")) for pid in session_processes(session_id))
    return [fields for fields in stats if fields is not None]


def _stat_fields(process: Path) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on; None when the process just ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _kib_field(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return 0
