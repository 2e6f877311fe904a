"""A model that does, by its seed, everything a model may do: talk, think, call, fail, break off, fall silent."""

from collections.abc import AsyncGenerator
from random import Random

import anyio
import anyio.lowlevel

from meerkat_mcp.domain.errors import ProviderRejected, ProviderUnavailable
from meerkat_mcp.domain.messages import ToolCall, ToolDefinition, Usage
from meerkat_mcp.providers.base import Model, ModelRequest, Part, Piece, Reply, Whole

TOOLS = (ToolDefinition(name="weather"), ToolDefinition(name="clock"))
NAMES = ("weather", "weather", "clock", "ghost", "house__lamp", "house__lamp", "house__door")
WINDOW_TOKENS = 5_000
PAUSES_S = (0, 0, 0.001, 0.02, 0.1, 2.0)


class WildModel:
    """Each reply depends on the seed and on how many came before, in whatever process."""

    name = "demo"

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._replies = 0
        self._calls = 0

    async def models(self) -> tuple[Model, ...]:
        return (Model(model="demo", provider="demo", context_tokens=WINDOW_TOKENS),)

    async def reply(self, request: ModelRequest) -> AsyncGenerator[Part, None]:
        self._replies += 1
        random = Random(f"{self._seed} reply {self._replies}")
        assert request.messages, "nobody asks a model nothing"
        for _ in range(random.choice((0, 1, 1, 2))):
            kind = random.choice(("text", "text", "reasoning"))
            text = ""
            for number in range(random.randint(0, 5)):
                await self._pause(random)
                text += f"{number} "
                yield Piece(kind=kind, text=f"{number} ")
            match random.random():
                case luck if luck < 0.06:
                    await anyio.sleep_forever()
                case luck if luck < 0.09:
                    raise ProviderUnavailable("Overloaded.")
                case luck if luck < 0.11:
                    raise ProviderRejected("No.")
                case luck if luck < 0.13:
                    return
                case luck if luck < 0.15:
                    text += "\ud800"  # half a character, which no log can hold
            yield Whole(kind=kind, text=text)
        called = random.choice((0, 0, 0, 1, 2, 3)) if request.tools else 0
        for _ in range(called):
            await self._pause(random)
            self._calls += 1
            tool_use_id = f"call-{self._calls}"
            malformed = "{" if random.random() < 0.05 else None
            args = {} if malformed else {"call": tool_use_id}
            yield ToolCall(tool_use_id=tool_use_id, tool_name=random.choice(NAMES), args=args, malformed=malformed)
        stop = "tool_calls" if called else random.choice(("end", "end", "end", "end", "length", "refusal", "truncated"))
        read = random.choice((3, 3, 3, WINDOW_TOKENS))
        yield Reply(stop_reason=stop, usage=Usage(input_tokens=read, output_tokens=2))

    @staticmethod
    async def _pause(random: Random) -> None:
        await anyio.lowlevel.checkpoint()
        if pause_s := random.choice(PAUSES_S):
            await anyio.sleep(pause_s)
