"""What a check sees, and what it says."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vendors.script import JsonObject

NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass
class Asked:
    """A request to a model. `memory` is what the lane's earlier replies said, as the wire's `remember` keeps it."""

    body: JsonObject
    headers: Mapping[str, str]
    memory: dict[Any, Any]

    def objects(self, name: str) -> list[JsonObject]:
        """The objects of a list in the body; none where there is no such list."""
        value = self.body.get(name)
        return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


@dataclass
class Objection:
    """Why a request is refused: `param` and `code` where the vendor has them."""

    message: str
    param: str | None = None
    code: str | None = None
    status: int = 400


Check = Callable[[Asked], Iterator[str | Objection]]


def objection(checks: Sequence[Check], asked: Asked) -> Objection | None:
    """The first thing that is wrong; a request that a check cannot make sense of is wrong too."""
    for check in checks:
        try:
            found = next(check(asked), None)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            found = f"{check.__name__} could not read the request: {error!r}"
        if found is not None:
            return found if isinstance(found, Objection) else Objection(found)
    return None


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def is_name(name: Any, longest: int) -> bool:
    return isinstance(name, str) and len(name) <= longest and NAME.fullmatch(name) is not None
