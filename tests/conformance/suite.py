"""The official conformance suite: run against a server, and what its checks said."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

NEEDS_FIXTURE = Path(__file__).parent / "needs_fixture.yml"
ENTRY = re.compile(r"  - (?P<name>[\w-]+(?::[\w-]+)?)  # (?P<reason>\S.*)")
RESULT = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
PATIENCE_S = 100


@dataclass(frozen=True)
class Check:
    """One thing that a scenario looks at."""

    id: str
    status: str
    said: str

    @property
    def failed(self) -> bool:
        """A warning is a SHOULD of the specification that is not kept: here it counts as well."""
        return self.status in ("FAILURE", "WARNING")


@dataclass(frozen=True)
class Run:
    """What the suite said about a server: the scenarios of a revision with their checks, and its output."""

    scenarios: dict[str, list[Check]]
    code: int
    output: str

    def failing(self) -> dict[str, str]:
        """`scenario:check` and what was said, for each check that failed."""
        return {
            f"{scenario}:{check.id}": f"{check.status.lower()}: {check.said}"
            for scenario, checks in self.scenarios.items()
            for check in checks
            if check.failed
        }


def run(node: str, packages: Path, url: str, folder: Path, revision: str) -> Run:
    """Run all scenarios of a revision of the specification, those that are not scored too, one after the other."""
    results = folder / revision
    program = packages / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    command = [node, str(program), "server", "--url", url, "--requirements", revision, "--output-dir", str(results)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", timeout=PATIENCE_S
    )
    found = [(RESULT.fullmatch(path.parent.name), path) for path in sorted(results.glob("*/checks.json"))]
    scenarios = {name["scenario"]: _checks(path) for name, path in found if name is not None}
    return Run(scenarios, done.returncode, done.stdout)


def _checks(path: Path) -> list[Check]:
    return [
        Check(check["id"], check["status"], check.get("errorMessage") or "")
        for check in json.loads(path.read_text(encoding="utf-8"))
    ]


def needing_fixtures() -> dict[str, str]:
    """The committed list: `scenario` or `scenario:check`, and why."""
    _, _, entries = NEEDS_FIXTURE.read_text(encoding="utf-8").partition("server:\n")
    lines = [ENTRY.fullmatch(line) for line in entries.splitlines()]
    assert all(lines), f"{NEEDS_FIXTURE.name} has a line that is not `  - scenario  # why`"
    return {line["name"]: line["reason"] for line in lines if line is not None}
