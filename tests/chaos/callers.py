"""Those who call the servers: what they do, and what they were told by that."""

import json
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import anyio
from chaos.ledger import Known, contains, ended, waited
from chaos.servers import Answer, Json, Server
from simulation import promises

from meerkat_mcp.domain.recorded import Recorded

if TYPE_CHECKING:
    from chaos.town import Town

WEATHER = {"name": "weather", "description": "What the weather is."}
SETTINGS: Json = {"provider": "demo", "tools": [WEATHER], "mcp_servers": {"notes": {}}, "permission_mode": "auto"}

SCRIPTS = (
    "[[say NAME one two three]]",
    "[[delta_ms 0]][[words 30]]",
    "[[delta_ms 10]][[words 40]]",
    "[[delta_ms 30]][[words 60]]",
    "[[reason about NAME]][[say thought about it]]",
    '[[call weather {"at": "NAME"}]][[next]][[say done NAME]]',
    '[[call weather {"at": "NAME 1"}]][[call weather {"at": "NAME 2"}]][[next]][[say both]]',
    '[[call notes__write {"name": "NAME 1"}]][[next]][[say noted]]',
    '[[call notes__write {"name": "NAME 1"}]][[call notes__write {"name": "NAME 2", "seconds": 0.5}]][[next]][[say 2]]',
    "[[call notes__write {'name': 'NAME 1'}]][[wait 1]][[next]][[call notes__write {'name': 'NAME 2'}]][[wait 1]]"
    "[[next]][[call notes__write {'name': 'NAME 3'}]][[next]][[say all three]]".replace("'", '"'),
    "[[say half]][[wait 3]][[say whole]]",
    "[[say half of]][[hang]]",
    "[[say half of]][[fail unavailable]]",
)


class Caller:
    """Somebody who calls one server or another."""

    def __init__(self, town: "Town", number: int) -> None:
        self.town = town
        self.name = f"c{number + 1}"
        self.random = Random(f"{town.plan.seed} caller {number}")
        self._count = 0

    async def live(self) -> None:
        while not self.town.over:
            if len(self.town.ledger.living()) < min(3, self.town.plan.sessions):
                await self.run()
            else:
                deed = self.random.choice(self.DEEDS)
                self.town.ledger.deeds[deed.__name__] += 1
                await deed(self)
            await anyio.sleep(self.random.choice((0, 0, 0.05, 0.3)))

    # ── words of theirs ──

    def _unique(self) -> str:
        self._count += 1
        return f"{self.name} says {self._count}"

    def _prompt(self) -> tuple[str, str]:
        """A name that no other prompt has, and the prompt."""
        name = self._unique()
        return name, f"{name}: {self.random.choice(SCRIPTS).replace('NAME', name)}"

    def _session(self) -> Known:
        known = self.town.ledger.living()
        return self.random.choice(known[-12:] if self.random.random() < 0.5 else known)

    async def _call(
        self, server: Server, tool: str, asked: Json, *, waits_s: float = 0.0, cancel_after_s: float | None = None
    ) -> Answer:
        verb, shown = tool.removeprefix("meerkat_"), json.dumps(asked, ensure_ascii=False)[:300]
        self.town.say(f"{self.name} → {server.name} {verb} {shown}")
        answer = await server.call(tool, asked, waits_s=waits_s, cancel_after_s=cancel_after_s)
        where = str(asked.get("session_id", "")) or (answer.result or {}).get("session_id", "")
        self.town.heard(answer, f"{self.name} ← {server.name} {verb} {where}")
        return answer

    async def _somebody(self) -> Server:
        return await self.town.somebody(self.random)

    # ── what they are told ──

    def _told(self, result: Json, name: str, prompt: str) -> None:
        """How a turn stands."""
        ledger, turn_id, session_id = self.town.ledger, result.get("turn_id"), result["session_id"]
        known = ledger.met(session_id)
        known.seq = max(known.seq, result["last_seq"])
        if turn_id is None:
            return ledger.tell(session_id, "the session", promises.has("session_created"))
        if name:
            ledger.prompts.setdefault(prompt, set()).add(turn_id)
        known.turn_ids.append(turn_id)
        ledger.tell(session_id, f"turn {turn_id} begins", promises.begins(turn_id))
        match result["status"]:
            case "completed":
                ledger.tell(session_id, f"turn {turn_id} completed", ended(turn_id, "turn_completed"))
                text = result["text"]
                if text and "\n" not in text and "text_cut" not in result:
                    said = ended(turn_id, "text_complete", text=text)
                    ledger.tell(session_id, f"turn {turn_id} said {text[:60]!r}", said)
            case "interrupted":
                ledger.tell(session_id, f"turn {turn_id} interrupted", promises.interrupted(turn_id))
            case "limit":
                ledger.tell(session_id, f"turn {turn_id} at a limit", ended(turn_id, "turn_limit_reached"))
            case "waiting":
                calls = [call["tool_use_id"] for call in result.get("pending_tool_calls") or ()]
                ledger.tell(session_id, f"turn {turn_id} waits for {calls}", waited(turn_id, calls))
            case _:
                ledger.detached.add(turn_id)

    def _failed(self, answer: Answer) -> None:
        """A turn that failed says which it is."""
        error = answer.error or {}
        session_id, turn_id = error.get("session_id"), error.get("turn_id")
        if answer.code == "provider_unavailable" and session_id and turn_id:
            self.town.ledger.met(session_id)
            self.town.ledger.tell(session_id, f"turn {turn_id} failed", ended(turn_id, "turn_failed"))

    def _overheard(self, server: Server) -> None:
        """Events that came as progress: recorded before anybody was told of them."""
        notes, server.notes = server.notes, []
        for note in notes:
            event = note.get("_meta", {}).get("meerkat/event")
            if event is not None and not event["type"].endswith("_delta"):
                told = Recorded(event["seq"], event["type"], json.dumps(event).encode()).event
                self.town.ledger.tell(told.session_id, f"event {told.seq} {told.type}", contains(told))

    async def _prompted(self, tool: str, asked: Json, name: str, prompt: str) -> None:
        """Ask for a turn; with a key it may be asked for again, of anybody."""
        wait_s = min(self.random.choice((0, 0, 0.5, 5, 20)), self.town.plan.seconds / 4)
        asked = asked | {"prompt": prompt, "wait_seconds": wait_s}
        if self.random.random() < 0.4:
            asked["on_cancel"] = "detach"
        if self.random.random() < 0.3:
            asked["stream"] = True
        times = 1
        if self.random.random() < 0.35:
            asked["idempotency_key"], times = f"key of {name}", self.random.randint(2, 3)
        cancel_after_s = self.random.uniform(0, 1) if self.random.random() < 0.07 else None
        results: set[tuple[str, str | None]] = set()

        async def once() -> None:
            server = await self._somebody()
            answer = await self._call(server, tool, asked, waits_s=wait_s, cancel_after_s=cancel_after_s)
            self._overheard(server)
            if answer.result is not None:
                results.add((answer.result["session_id"], answer.result.get("turn_id")))
                self._told(answer.result, name, prompt)
            else:
                self._failed(answer)

        if times > 1 and self.random.random() < 0.4:
            async with anyio.create_task_group() as tasks:
                for _ in range(times):
                    tasks.start_soon(once)
        else:
            for _ in range(times):
                await once()
        if times > 1 and results:
            self.town.ledger.keys.setdefault(asked["idempotency_key"], set()).update(results)

    # ── what they do ──

    async def run(self) -> None:
        if len(self.town.ledger.living()) >= self.town.plan.sessions:
            return await self.resume()
        name, prompt = self._prompt()
        await self._prompted("meerkat_run", SETTINGS | {"title": name, "labels": {"by": self.name}}, name, prompt)

    async def resume(self) -> None:
        name, prompt = self._prompt()
        if_busy = self.random.choice(("reject", "interrupt", "queue", "queue"))
        asked = {"session_id": self._session().session_id, "if_busy": if_busy}
        await self._prompted("meerkat_resume", asked, name, prompt)

    async def answer(self) -> None:
        """Bring what a waiting turn waits for, maybe twice."""
        session_id = await self._waiting()
        if session_id is None:
            return
        read = await self._call(await self._somebody(), "meerkat_read", {"session_id": session_id})
        turn = (read.result or {}).get("turn") or {}
        calls = [call["tool_use_id"] for call in turn.get("pending_tool_calls") or ()]
        if not calls:
            return
        name = self._unique()
        results = [{"tool_use_id": call, "content": f"{name} {call}"} for call in calls]
        asked = {"session_id": session_id, "tool_results": results, "wait_seconds": self.random.choice((0, 2, 10))}
        turns: set[str] = set()
        for _ in range(self.random.choice((1, 1, 2))):
            said = await self._call(await self._somebody(), "meerkat_resume", asked, waits_s=asked["wait_seconds"])
            if said.result is not None:
                turns.add(said.result["turn_id"])
                self._told(said.result, "", "")
                contents = [result["content"] for result in results]
                self.town.ledger.tell(session_id, f"results {contents}", promises.answered(contents))
        if len(turns) > 1:
            self.town.ledger.wrong.append(f"{session_id}: the same results went to several turns: {turns}")

    async def _waiting(self) -> str | None:
        listed = await self._call(await self._somebody(), "meerkat_sessions", {"state": "waiting", "limit": 20})
        found = [each["session_id"] for each in (listed.result or {}).get("sessions", ())]
        return self.random.choice(found) if found else None

    async def interrupt(self) -> None:
        known = self._session()
        asked: Json = {"session_id": known.session_id}
        if known.turn_ids and self.random.random() < 0.5:
            asked["expected_turn_id"] = known.turn_ids[-1]
        answer = await self._call(await self._somebody(), "meerkat_interrupt", asked, waits_s=10)
        if (said := answer.result) is not None and said["interrupted"]:
            if asked.get("expected_turn_id", said["turn_id"]) != said["turn_id"]:
                self.town.ledger.wrong.append(f"{known.session_id}: asked to interrupt {asked}, and was told {said}")
            if said["ended"]:
                what = f"interrupted {said['turn_id']}"
                self.town.ledger.tell(known.session_id, what, promises.interrupted(said["turn_id"]))

    async def read(self) -> None:
        known, wait_s = self._session(), self.random.choice((0, 0, 1, 8))
        at_least = known.seq
        asked = {"session_id": known.session_id, "wait_seconds": wait_s}
        answer = await self._call(await self._somebody(), "meerkat_read", asked, waits_s=wait_s)
        if answer.result is None:
            return
        seq = answer.result["session"]["last_seq"]
        if seq < at_least:
            self.town.ledger.wrong.append(f"{known.session_id}: read up to {seq}, and {at_least} was told of before")
        known.seq = max(known.seq, seq)
        if (turn := answer.result.get("turn")) is not None and turn["status"] != "failed":
            self._told(turn, "", "")

    async def look(self) -> None:
        """Lists, a search, a history: none of it may fail."""
        session_id = self._session().session_id
        asked = self.random.choice(({}, {"query": self.name}, {"labels": {"by": self.name}}, {"archived": True}))
        await self._call(await self._somebody(), "meerkat_sessions", asked)
        await self._call(await self._somebody(), "meerkat_history", {"session_id": session_id})

    async def change(self) -> None:
        known, title = self._session(), self._unique()
        asked = {"session_id": known.session_id, "title": title}
        answer = await self._call(await self._somebody(), "meerkat_resume", asked)
        if answer.result is not None:
            self._small(answer)
            known.seq = max(known.seq, answer.result["last_seq"])
            self.town.ledger.tell(known.session_id, f"title {title}", promises.has_title(title))

    async def archive(self) -> None:
        """Put away; mostly brought back, at times deleted."""
        known = self._session()
        if not (await self._archived(known, {})):
            return
        if self.random.random() < 0.25:
            await self._delete(known)
        elif self.random.random() < 0.9:
            await self._archived(known, {"restore": True})

    async def _archived(self, known: Known, how: Json) -> bool:
        asked = {"session_id": known.session_id} | how
        answer = await self._call(await self._somebody(), "meerkat_archive", asked)
        if answer.result is None:
            return False
        self._small(answer)
        kind = "session_restored" if how else "session_archived"
        self.town.ledger.tell(known.session_id, kind, promises.has(kind))
        return True

    def _small(self, answer: Answer) -> None:
        if answer.calm:
            self.town.ledger.small_s.append(answer.took_s)

    async def _delete(self, known: Known) -> None:
        known.gone = True
        asked = {"session_id": known.session_id, "confirm": known.session_id}
        answer = await self._call(await self._somebody(), "meerkat_delete", asked)
        if answer.result is not None:
            self.town.deleted.add(known.session_id)
            read = await self._call(await self._somebody(), "meerkat_read", {"session_id": known.session_id})
            if read.result is not None:
                self.town.ledger.wrong.append(f"{known.session_id} was deleted, and is there: {read}")

    async def fork(self) -> None:
        if len(self.town.ledger.living()) >= self.town.plan.sessions:
            return
        known = self._session()
        asked: Json = {"session_id": known.session_id, "title": self._unique()}
        if known.seq and self.random.random() < 0.5:
            asked["at_seq"] = self.random.randint(1, known.seq)
        answer = await self._call(await self._somebody(), "meerkat_fork", asked)
        if (fork := answer.result) is not None:
            self.town.ledger.met(fork["session_id"]).seq = fork["last_seq"]
            self.town.ledger.tell(fork["session_id"], "a fork", promises.has("session_created"))
            forked = _forked_into(fork["session_id"])
            self.town.ledger.tell(known.session_id, f"forked into {fork['session_id']}", forked)

    async def configure(self) -> None:
        """Each caller has a place of its own in the config, so that whatever it was told there stays there."""
        config = self.town.ledger.config
        at_least = max(config.generations, default=0)
        got = await self._call(await self._somebody(), "meerkat_config", {"action": "get"})
        if got.result is None:
            return
        generation = got.result["generation"]
        if generation < at_least:
            self.town.ledger.wrong.append(f"the config was at {at_least}, and was read at {generation}")
        value = f"http://127.0.0.1:1/{self._unique().replace(' ', '/')}"
        patch = {"self_hosted": {self.name: {"base_url": value}}}
        asked: Json = {"action": "patch", "patch": patch}
        if self.random.random() < 0.7:
            asked["expected_generation"] = generation
        answer = await self._call(await self._somebody(), "meerkat_config", asked)
        if answer.result is not None:
            self._small(answer)
            new = answer.result["generation"]
            if new in config.generations or ("expected_generation" in asked and new != generation + 1):
                self.town.ledger.wrong.append(f"config: {asked} came to generation {new}")
            config.generations.append(new)
            config.left[self.name] = [value]
        elif answer.code != "generation_conflict":
            config.left.setdefault(self.name, [""]).append(value)

    async def compact(self) -> None:
        await self._call(
            await self._somebody(),
            "meerkat_compact",
            {"session_id": self._session().session_id, "wait_seconds": 3},
            waits_s=3,
        )

    async def watch(self) -> None:
        self.town.watch(self.random.choice(self.town.ledger.living()[-12:]).session_id)

    DEEDS: tuple[Callable[["Caller"], object], ...] = (
        *(run, run, run, run, resume, resume, resume, resume, resume, resume, resume),
        *(answer, answer, answer, answer, interrupt, interrupt, interrupt, read, read, read),
        *(look, change, archive, archive, fork, configure, compact, watch, watch),
    )


def _forked_into(fork_id: str) -> Callable[[promises.Log], bool]:
    return lambda log: any(event.type == "session_forked" and event.fork_id == fork_id for event in log)
