"""Follow a log from inside the program: the same door that every surface uses."""

import anyio

from meerkat_mcp import Settings, choose, open_realm


async def main() -> None:
    async with open_realm(choose("embedded")) as realm:
        started = await realm.sessions.run("[[words 20]]", Settings())
        async with realm.journal.follow(started.session_id, after=0) as log:
            ended = False
            while not ended:
                for recorded in await log.next():
                    print(recorded.seq, recorded.type)
                    ended = recorded.type == "turn_completed"


if __name__ == "__main__":
    anyio.run(main)
