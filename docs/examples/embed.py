"""Sessions without MCP: open a realm and call its services."""

import anyio

from meerkat_mcp import Settings, choose, open_realm


async def main() -> None:
    async with open_realm(choose("embedded")) as realm:
        started = await realm.sessions.run("My name is Ada.", Settings(model="demo"), title="A first one")
        await realm.sessions.wait(started.session_id, started.turn_id, 30)

        started = await realm.sessions.resume(started.session_id, "What's my name?")
        await realm.sessions.wait(started.session_id, started.turn_id, 30)
        session = await realm.sessions.settled(started.session_id)
        outcome = await realm.sessions.outcome(session, started.turn_id)
        print(outcome.status, outcome.text)

        history = await realm.reading.history(session.id)
        print([placed.message.role for placed in history.messages])


if __name__ == "__main__":
    anyio.run(main)
