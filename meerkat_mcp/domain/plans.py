"""What is about to be deleted, under a name that stands for exactly that: what was looked at is what goes."""

import hashlib

from meerkat_mcp.domain.errors import PlanChanged
from meerkat_mcp.domain.messages import Value

SHOWN_MAX = 100


class Plan(Value):
    """Sessions of a realm that would be deleted together."""

    realm_id: str
    session_ids: tuple[str, ...]

    @property
    def plan_id(self) -> str:
        """The same for the same sessions of the same realm, whatever else has changed."""
        named = "\n".join([self.realm_id, *sorted(self.session_ids)])
        return f"plan-{hashlib.sha256(named.encode()).hexdigest()[:32]}"

    def check(self, plan_id: str) -> None:
        """Refuse to do what another plan says. Raises PlanChanged."""
        if plan_id == self.plan_id:
            return
        raise PlanChanged(
            f"That plan is not what would be deleted now: {len(self.session_ids)} sessions.",
            hint="Look at the plan of now, and confirm that one.",
            plan_id=self.plan_id,
            session_ids=list(self.session_ids[:SHOWN_MAX]),
            total=len(self.session_ids),
        )
