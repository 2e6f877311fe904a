"""Bad HTTP: addresses, methods, headers, framing, bodies, Hosts and Origins."""

from random import Random

from web.abuse.kinds import ACCEPT, MODERN, World, enveloped, kind, modern_headers
from web.abuse.wire import chunked, request

PATHS = ("/mcp", "/metrics", "/healthz", "/readyz", "/", "/sessions/nowhere", "/sessions/nowhere/events", "/assets/x")
GOOD = enveloped("server/discover")
GOOD_HEADERS = modern_headers("server/discover")


def lines(world: World, *more: str, first: str = "POST /mcp HTTP/1.1", body: bytes = b"", who: str = "run") -> bytes:
    """A POST of exactly these lines after those that every client sends."""
    known = [f"{name}: {value}" for name, value in (*world.headers(who), *GOOD_HEADERS)]
    return "\r\n".join((first, *known, *more, "", "")).encode("latin-1") + body


# ── what is asked for, and how ──


@kind(405, 404, ours=False)
def wrong_http_method(random: Random, world: World) -> bytes:
    method = random.choice(("PUT", "PATCH", "TRACE", "PROPFIND", "OPTIONS", "get", "BREW", "A" * 2000))
    return world.get(random.choice(PATHS[1:]), method=method)


@kind(405, 406, 404, 400, ours=False)
def wrong_http_method_for_mcp(random: Random, world: World) -> bytes:
    method = random.choice(("PUT", "PATCH", "TRACE", "OPTIONS", "get", "BREW", "HEAD"))
    modern = [("MCP-Protocol-Version", MODERN)] if random.random() < 0.5 else []
    return world.get("/mcp", *modern, method=method)


@kind(405, ours=False)
def get_or_delete_of_2026(random: Random, world: World) -> bytes:
    return world.get("/mcp", ("MCP-Protocol-Version", MODERN), method=random.choice(("GET", "DELETE")))


@kind(405, ours=False)
def post_to_what_is_only_read(random: Random, world: World) -> bytes:
    return world.post(GOOD, *GOOD_HEADERS, path=random.choice(PATHS[1:]))


@kind(404, ours=False)
def unknown_path(random: Random, world: World) -> bytes:
    path = random.choice(("/nothing", "/mcp2", "/favicon.ico", "/.env", "/sessions", "/admin", "/" + "a" * 9000))
    return world.get(path + random.choice(("", "?a=b", "?" + "x" * 5000)))


@kind(404, 307, ours=False)
def another_spelling_of_the_path(random: Random, world: World) -> bytes:
    """None of them is MCP, or the metrics; a slash too many may be led to where it is without."""
    path = random.choice(
        (
            "//mcp",
            "/mcp/",
            "/MCP",
            "/mcp/../metrics",
            "/./mcp",
            "/mcp%00",
            "/mcp%2f",
            "/mcp;a=b",
            "///metrics",
            "/metrics/",
        )
    )
    return world.post(GOOD, *GOOD_HEADERS, path=path)


@kind(200, ours=False)
def another_spelling_that_is_the_same(random: Random, world: World) -> bytes:
    return world.get(random.choice(("/%68ealthz", "/healthz?x=%ff", "/health%7a", "/healthz?/../mcp")))


@kind(401)
def another_spelling_without_a_token(random: Random, world: World) -> bytes:
    path = random.choice(
        ("//mcp", "/mcp/", "/m%63p", "/%6dcp", "/mcp%2f", "/.well-known/../mcp", "/assets/../mcp", "/sessions/x/../mcp")
    )
    if path.startswith(("/.well-known/", "/assets/")):
        path = path.replace("/../", "%2f..%2f")[1:]
        path = f"//{path}"
    return world.post(GOOD, *GOOD_HEADERS, path=path, who=None)


@kind(404, 405, 401, ours=False)
def a_way_up_from_an_open_path(random: Random, world: World) -> bytes:
    """Open paths are open to everybody; nothing else is reached through them."""
    start = random.choice(("/assets/", "/.well-known/", "/sessions/x/../", "/assets/%2e%2e/"))
    end = random.choice(
        ("../mcp", "..%2fmetrics", "%2e%2e/metrics", "..\\mcp", "../../etc/passwd", "%00", "watch.css%00")
    )
    return world.get(start + end, who=None)


@kind(400, 404, ours=False)
def a_target_that_is_none(random: Random, world: World) -> bytes:
    target = random.choice(("mcp", "*", "http://evil.example/mcp", "evil.example:443", "", "/a b", "/é", "/\x7f"))
    return lines(world, first=f"GET {target} HTTP/1.1")


@kind(400, 405, 505, ours=False)
def another_http(random: Random, world: World) -> bytes:
    version = random.choice(("HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "http/1.1", "HTTP/1", "", "ICAP/1.0", "HTTP/1.1 "))
    return lines(world, first=f"GET /mcp {version}")


@kind(400, 421, 0, ours=False)
def no_http(random: Random, world: World) -> bytes:
    other = (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"SSH-2.0-x\r\n\r\n")
    return random.choice((*other, random.randbytes(400) + b"\r\n\r\n", b"EHLO x\r\n\r\n", b'{"jsonrpc":"2.0"}\r\n\r\n'))


# ── framing ──


@kind(400, ours=False)
def wrong_length(random: Random, world: World) -> bytes:
    wrong = random.choice(("-1", "abc", "1e3", "0x10", "+5", "9" * 30, "5, 6", "", " ", "5 5"))
    return lines(world, f"Content-Length: {wrong}", body=b"12345")


@kind(400, ours=False)
def two_lengths(random: Random, world: World) -> bytes:
    return lines(world, "Content-Length: 5", "Content-Length: 6", body=b"123456")


@kind(400, 501, ours=False)
def wrong_transfer_coding(random: Random, world: World) -> bytes:
    coding = random.choice(("gzip", "identity", "chunked, chunked", "gzip, chunked", "xchunked", "", "chunked\x0b"))
    return lines(world, f"Transfer-Encoding: {coding}", body=chunked(b"a"))


@kind(400, ours=False)
def broken_chunks(random: Random, world: World) -> bytes:
    wrong = (
        b"zz\r\nab\r\n0\r\n\r\n",
        b"-1\r\n\r\n",
        b"2\nab\r\n0\r\n\r\n",
        b"2\r\nabc\r\n0\r\n\r\n",
        b"F" * 40 + b"\r\n\r\n",
    )
    body = random.choice((*wrong, b"2 \t;\x00\r\nab\r\n0\r\n\r\n", b"\r\n", b"0x2\r\nab\r\n0\r\n\r\n"))
    return lines(world, "Transfer-Encoding: chunked", body=body)


@kind(400, 0, ours=False)
def folded_header(random: Random, world: World) -> bytes:
    return lines(world, "X-Long: a", " Authorization: Bearer x", "\tb", first="GET /nothing HTTP/1.1\r\n X: y")


@kind(400, ours=False)
def wrong_header(random: Random, world: World) -> bytes:
    name = random.choice(("X Y: a", ": a", "X\x00: a", "X: a\x00b", "X : a", "nothing", "é: a", "X: a\rY: b", "(): a"))
    return lines(world, name, first="GET /healthz HTTP/1.1")


@kind(431, 400, 0, ours=False)
def flood_of_headers(random: Random, world: World) -> bytes:
    size = random.randrange(400_000, 600_000)  # more than is read at once
    flood = (f"X: {'a' * size}",) if random.random() < 0.5 else tuple(f"X-{n}: {'a' * 20}" for n in range(size // 25))
    return lines(world, *flood, first="GET /healthz HTTP/1.1")


@kind(200)
def many_headers(random: Random, world: World) -> bytes:
    return world.get("/healthz", *((f"X-{number}", "a" * 20) for number in range(random.randrange(500, 1500))))


@kind(how="cut")
def half_a_request(random: Random, world: World) -> bytes:
    whole = world.tool("meerkat_run", {"prompt": "hi"}, who="run")
    return whole[: random.randrange(1, len(whole) - 1)]


@kind(how="cut")
def half_a_chunk(random: Random, world: World) -> bytes:
    return lines(world, "Transfer-Encoding: chunked", body=b"ff\r\n" + b"a" * random.randrange(200))


# ── bodies ──


@kind(413, 0, ours=False)
def too_large_a_body(random: Random, world: World) -> bytes:
    size = world.body_bytes_max + random.randrange(1, 50_000)
    who = random.choice(("all", "read"))
    return world.post(b" " * size, *GOOD_HEADERS, who=who)


@kind(413, 0, ours=False)
def too_large_a_body_without_length(random: Random, world: World) -> bytes:
    chunk = b" " * 9000
    many = world.body_bytes_max // len(chunk) + random.randrange(2, 9)
    return lines(world, "Transfer-Encoding: chunked", body=chunked(*[chunk] * many))


@kind(413, 0, ours=False)
def a_body_that_is_said_to_be_huge(random: Random, world: World) -> bytes:
    return lines(world, f"Content-Length: {random.choice((10**7, 2**31, 2**63, 10**18))}", body=b"{}", who="all")


@kind(413, 401, 0)
def too_large_a_body_of_a_stranger(random: Random, world: World) -> bytes:
    return world.post(b" " * (world.body_bytes_max + random.randrange(50_000)), *GOOD_HEADERS, who=None)


@kind(400, 415, ours=False)
def wrong_content_type(random: Random, world: World) -> bytes:
    wrong = random.choice(
        (
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=a",
            "application/jso",
            "",
            "json",
        )
    )
    return world.post(GOOD, *GOOD_HEADERS, ("Content-Type", wrong))


@kind(406, ours=False)
def wrong_accept(random: Random, world: World) -> bytes:
    wrong = random.choice(("text/html", "application/json", "text/event-stream", "image/*", "x", ";;;,,,"))
    if random.random() < 0.5:
        return world.post(GOOD, *GOOD_HEADERS, ("Accept", wrong))
    return world.legacy({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, ("Accept", wrong))


@kind(400, ours=False)
def a_packed_body(random: Random, world: World) -> bytes:
    return world.post(b"\x1f\x8b\x08" + random.randbytes(60), *GOOD_HEADERS, ("Content-Encoding", "gzip"))


# ── Hosts and Origins ──


@kind(421)
def foreign_host(random: Random, world: World) -> bytes:
    port = world.host.rpartition(":")[2]
    host = random.choice(
        (
            f"evil.example:{port}",
            f"127.0.0.1.evil.example:{port}",
            "localhost.",
            "127.1",
            "0.0.0.0",
            "[::]",
            "2130706433",
        )
    )
    return world.post(GOOD, *GOOD_HEADERS, ("Host", host))


@kind(421, 400)
def wrong_host(random: Random, world: World) -> bytes:
    wrong = random.choice(
        ("127.0.0.1:9111:80", "[::1", "127.0.0.1:x", "user@127.0.0.1", "127.0.0.1/", "a b", "é", "x" * 9999)
    )
    return world.post(GOOD, *GOOD_HEADERS, ("Host", wrong))


@kind(400, 421, ours=False)
def no_host_or_two(random: Random, world: World) -> bytes:
    headers = [(name, value) for name, value in world.headers() if name != "Host"]
    two = [("Host", world.host), ("Host", "evil.example")] if random.random() < 0.5 else []
    return request(random.choice(("GET", "POST")), random.choice(PATHS), [*two, *headers], b"{}")


@kind(421)
def http_1_0_without_host(random: Random, world: World) -> bytes:
    return b"GET /healthz HTTP/1.0\r\n\r\n"


ORIGINS = (
    "https://evil.example",
    "null",
    "file://",
    "http://127.0.0.1.evil.example",
    "http://localhost@evil.example",
    "chrome-extension://abc",
    "http://[::1",
    "x" * 9999,
    "http://é.example",
    "http://evil.example, http://localhost",
    "//localhost",
    "http://localhost/path",
)


@kind(403)
def foreign_origin(random: Random, world: World) -> bytes:
    origin = ("Origin", random.choice(ORIGINS))
    match random.randrange(3):
        case 0:
            return world.post(GOOD, *GOOD_HEADERS, origin)
        case 1:
            return world.get(random.choice(PATHS), origin)
        case _:
            return world.get("/mcp", origin, ("Access-Control-Request-Method", "POST"), method="OPTIONS", who=None)


@kind(403)
def a_page_that_posts_a_form(random: Random, world: World) -> bytes:
    """What a browser lets any page send without asking first."""
    simple = (("Content-Type", "text/plain"), ("Accept", "*/*"), ("Origin", random.choice(ORIGINS[:5])))
    return world.post(GOOD, *simple, who=None)


@kind(400, 421, 403, 401)
def everything_at_once(random: Random, world: World) -> bytes:
    return world.post(b"\xff" * 10, ("Host", "evil.example"), ("Origin", "null"), ("Accept", ACCEPT[:9]), who=None)
