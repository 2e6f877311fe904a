"""A server of the older era that speaks raw lines, and misbehaves as its flags say. It needs nothing but Python."""

import json
import os
import sys
import time

FLAGS = sys.argv[1:]
hung: list[int] = []
cancelled: list[int] = []
names = ["echo", "hang", "cancelled", "die", "grow", "broken_pair", "not_a_result", "pid"]


def say(message: dict) -> None:
    sys.stdout.buffer.write(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")
    sys.stdout.buffer.flush()


def answer(number: int, result: dict) -> None:
    say({"id": number, "result": result})


def listing(cursor: str | None) -> dict:
    if "--pages-without-end" in FLAGS:
        page = int(cursor or 0)
        tools = [{"name": f"t{page}_{n}", "inputSchema": {"type": "object"}} for n in range(100)]
        return {"tools": tools, "nextCursor": str(page + 1)}
    if "--pages" in FLAGS:
        at = int(cursor or 0)
        last = {} if at + 1 == len(names) else {"nextCursor": str(at + 1)}
        return {"tools": [{"name": names[at], "inputSchema": {"type": "object"}}]} | last
    return {"tools": [{"name": name, "description": "d" * 30_000, "inputSchema": {"type": "object"}} for name in names]}


def call(number: int, name: str, arguments: dict) -> None:
    match name:
        case "hang":
            hung.append(number)
            return
        case "die":
            os._exit(7)
        case "grow":
            names.append("grown")
            say({"method": "notifications/tools/list_changed"})
            text = "grown"
        case "cancelled":
            text = json.dumps({"hung": len(hung), "cancelled": [number in hung for number in cancelled]})
        case "broken_pair":
            text = "half a smile \ud83d"
        case "not_a_result":
            answer(number, {"content": "what?"})
            return
        case "pid":
            text = str(os.getpid())
        case "echo":
            text = json.dumps(arguments)
        case _:
            say({"id": number, "error": {"code": -32602, "message": f"Unknown tool: {name}"}})
            return
    answer(number, {"content": [{"type": "text", "text": text}]})


def hear(message: dict) -> None:
    method, number = message["method"], message.get("id")
    params = message.get("params") or {}
    match method:
        case "initialize":
            capabilities = {} if "--no-tools" in FLAGS else {"tools": {"listChanged": True}}
            about = {"protocolVersion": "2025-06-18", "capabilities": capabilities}
            answer(number, about | {"serverInfo": {"name": "bare", "version": "1"}})
        case "tools/list" if "--no-tools" not in FLAGS:
            answer(number, listing(params.get("cursor")))
        case "tools/call":
            call(number, params["name"], params.get("arguments") or {})
        case "notifications/cancelled":
            cancelled.append(params["requestId"])
        case _ if number is not None:
            say({"id": number, "error": {"code": -32601, "message": "Method not found"}})


def main() -> None:
    if "--dies" in FLAGS:
        print(f"no luck with {os.environ.get('TOKEN')}", file=sys.stderr, flush=True)
        sys.exit(5)
    if "--silent" in FLAGS:
        print("loading a large model", file=sys.stderr, flush=True)
    if "--stubborn" in FLAGS:
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        if "--garbage" in FLAGS:
            sys.stdout.buffer.write(b'Starting up...\n\n{"not": "a message"}\n\xff\xfe\n')
        message = json.loads(line)
        if "--handshake-first" in FLAGS and message["method"] != "initialize":
            sys.exit(1)
        if "--handshake-first" in FLAGS:
            FLAGS.remove("--handshake-first")
        if "--silent" not in FLAGS:
            hear(message)
    while "--stubborn" in FLAGS:
        time.sleep(60)


if __name__ == "__main__":
    main()
