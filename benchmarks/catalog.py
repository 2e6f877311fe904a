"""Every benchmark by its name, and where it is; each runs in a process of its own, so that none disturbs another."""

from importlib import import_module

from benchmarks.results import Benchmark

BENCHMARKS: dict[str, str] = {
    "cold-start": "starting:cold_start",
    "shared-start": "residing:shared_start",
    "shared-hosts": "residing:shared_hosts",
    "cli-list": "starting:cli_list",
    "imports": "starting:imports",
    "stdio-call": "calling:stdio_call",
    "progress": "calling:progress",
    "append": "appending:append",
    "append-single": "appending:append_single",
    "storage": "appending:storage",
    "processes": "sharing:processes",
    "fairness": "sharing:fairness",
    "wake": "waking:wake",
    "follow": "waking:follow",
    "fanout": "fanning:fanout",
    "fanout-paced": "fanning:fanout_paced",
    "turn-burst": "turning:turn_burst",
    "turn-overhead": "turning:turn_overhead",
    "first-delta": "turning:first_delta",
    "deltas": "turning:deltas",
    "interrupt": "interrupting:interrupt",
    "read-since": "reading:read_since",
    "replay": "reading:replay",
    "list-pages": "listing:list_pages",
    "growing-sqlite": "growing:growing_sqlite",
    "growing-postgres": "growing:growing_postgres",
    "memory": "remembering:memory",
    "stall": "stalling:stall",
    "adapters": "adapting:adapters",
    "first-word": "answering:first_word",
    "first-word-late": "answering:first_word_late",
    "first-word-cold": "answering:first_word_cold",
    "tool-step": "tooling:tool_step",
    "telemetry-off": "unwatched:telemetry_off",
    "crowd": "crowding:crowd",
    "followers": "crowding:followers",
}


def load(name: str) -> Benchmark:
    """The benchmark of that name."""
    module, _, function = BENCHMARKS[name].partition(":")
    return getattr(import_module(f"benchmarks.{module}"), function)


def line(name: str) -> str:
    """What it measures, in one line."""
    return " ".join((load(name).__doc__ or "").split("\n\n")[0].split())
