"""Sessions as files, without MCP: export one, import it into another realm, rename it, go on with it."""

from tempfile import TemporaryDirectory

import anyio

from meerkat_mcp import Settings, choose, open_realm


async def main() -> None:
    with TemporaryDirectory() as folder:
        file = anyio.Path(folder) / "names.jsonl"
        async with open_realm(choose("embedded")) as realm:
            started = await realm.sessions.run("My name is Ada.", Settings(model="demo"))
            await realm.sessions.wait(started.session_id, started.turn_id, 30)
            session = await realm.sessions.settled(started.session_id)
            async with await file.open("wb") as out:
                async for line in realm.reading.export_session(session):
                    await out.write(line)

        async with open_realm(choose("elsewhere")) as realm:
            async with await file.open("rb") as lines:
                made = await realm.shelf.import_session(lines, title="Names")
            session = await realm.shelf.rename(made.session.id, labels={"from": made.origin.realm_id})
            print(session.title, session.labels, made.dropped)

            started = await realm.sessions.resume(session.id, "What's my name?")
            await realm.sessions.wait(started.session_id, started.turn_id, 30)
            session = await realm.sessions.settled(started.session_id)
            print((await realm.sessions.outcome(session, started.turn_id)).text)


if __name__ == "__main__":
    anyio.run(main)
