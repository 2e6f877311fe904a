"""What the store asks of its tables; the first parameter is the realm."""

from meerkat_mcp.domain.session import WORKING

READ = (
    "SELECT seq, type, body FROM events WHERE session = (SELECT number FROM sessions WHERE realm = $1 AND id = $2)"
    " AND seq > $3 AND seq <= $4 {} ORDER BY seq LIMIT $5"
)
LOAD = """
SELECT seq, NULL, body FROM shown WHERE session = (SELECT number FROM sessions WHERE realm = $1 AND id = $2)
UNION ALL
(SELECT events.seq, events.type, events.body FROM shown JOIN events ON events.session = shown.session
WHERE shown.session = (SELECT number FROM sessions WHERE realm = $1 AND id = $2) AND events.seq > shown.seq
ORDER BY events.seq LIMIT 1000)
"""
MATCHING = "SELECT id FROM sessions WHERE realm = $1 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4"
MATCHING_OF = (
    "SELECT id FROM sessions WHERE realm = $1 AND id >= $2 AND id < $3 AND principal = $5 ORDER BY id DESC LIMIT $4"
)
CLAIM = (
    "SELECT digest, sessions.id, turn_id, created_ms FROM claims JOIN sessions ON number = session"
    " WHERE claims.realm = $1 AND key = $2"
)
PUT_CLAIM = "SELECT put_claim($1, $2, $3, $4, $5, $6, $7)"
PRUNE_CLAIMS = (
    "DELETE FROM claims WHERE realm = $1"
    " AND key = ANY (ARRAY(SELECT key FROM claims WHERE realm = $1 AND created_ms < $2 LIMIT 10000)) RETURNING 1"
)
CLAIMS_OF = (
    "SELECT key, whole_key, digest, turn_id, created_ms FROM claims"
    " WHERE session = (SELECT number FROM sessions WHERE realm = $1 AND id = $2)"
)
STREAMS_OF = "SELECT body FROM streams WHERE session = (SELECT number FROM sessions WHERE realm = $1 AND id = $2)"
TAKE = (
    "WITH next AS ("
    "SELECT session FROM shown WHERE realm = $1 AND ready_ms < $2 AND reserved_until_ms <= now_ms() + $4"
    " ORDER BY ready_ms, id LIMIT $5 FOR UPDATE SKIP LOCKED)"
    " UPDATE shown SET reserved_until_ms = now_ms() + $3 FROM next WHERE shown.session = next.session"
    " RETURNING ready_ms, id"
)
AT_WORK = f"SELECT body FROM shown WHERE realm = $1 AND state IN {WORKING}"
TIDY = "SELECT * FROM tidy($1, $2, $3, $4, $5, $6, $7, $8)"
ON_DUTY = (
    "INSERT INTO duties VALUES ($1, $2, $3, now_ms() + $4) ON CONFLICT (realm, duty) DO UPDATE"
    " SET incarnation = excluded.incarnation, until_ms = excluded.until_ms"
    " WHERE duties.incarnation = excluded.incarnation OR duties.until_ms <= now_ms() + $5 RETURNING 1"
)
SEALING_KEY = "SELECT sealing_key($1, $2)"
DESTROY = "SELECT destroy($1, 20000)"
"""Events that go with one transaction."""
PUT_STREAM = (
    "INSERT INTO streams (realm, id, session, used_ms, body)"
    " SELECT $1, $2, number, $3, $4 FROM sessions WHERE realm = $1 AND id = $5 FOR KEY SHARE"
    " ON CONFLICT (realm, id) DO UPDATE SET session = excluded.session, used_ms = excluded.used_ms,"
    " body = excluded.body RETURNING 1"
)
PRUNE_STREAMS = "DELETE FROM streams WHERE realm = $1 AND used_ms < $2 RETURNING 1"
RENEW = (
    "WITH swept AS (DELETE FROM instances WHERE realm = $1 AND expires_ms <= now_ms() AND incarnation <> $2)"
    " INSERT INTO instances VALUES ($1, $2, $3, $4, $5, now_ms() + $6)"
    " ON CONFLICT (realm, incarnation) DO UPDATE SET expires_ms = excluded.expires_ms"
)
ALIVE = "SELECT 1 FROM instances WHERE realm = $1 AND incarnation = $2 AND now_ms() + $3 < expires_ms"
RETIRE = (
    "WITH freed AS (DELETE FROM duties WHERE realm = $1 AND incarnation = $2)"
    " DELETE FROM instances WHERE realm = $1 AND incarnation = $2"
)
