-- The realms of one database, version 1. Everything lies in the schema `meerkat`, which is the search path here.
--
-- A session is its log: its events are the rows of `events` with its number. All realms share the tables, told apart
-- by `realm`. Session numbers are never given twice, so a number that somebody remembers never leads to a stranger.
--
-- THE FENCE. Whoever appends calls `append`, and nothing else adds events. It locks the rows of the sessions it writes
-- to, in the order of their ids, and compares the seq that each append says it follows with `sessions.seq`. The lock is
-- a row's, and it is held by one statement: while the statement runs and commits, never while a client thinks, is
-- stopped, or is gone. Two processes that write different sessions do not wait for each other at all.
-- Idempotency keys are rows of `claims`, added in the same transaction; who adds some takes a lock for each of them
-- first, in the order of the locks. Sessions before keys, each kind in one order: no two calls wait for each other.
--
-- WHAT IS NEW. A counter that every commit takes would be in commit order only if it were locked until the commit is on
-- the disk: one commit at a time for a whole realm. Numbers from a sequence need no lock, but are handed out long before
-- they are committed: a reader who is past 8 would never see the 7 that commits late. So every event carries the id of
-- its transaction, `tx`, and a reader keeps the *snapshot* of its last look. New is what that snapshot did not contain:
-- the transactions that were under way then (`xip`), and those that began later (from `xmax` on). That is exact, needs
-- no lock, and looks at new rows only. Looking stops at the end of the present snapshot: after a restore from a dump
-- there may be rows with higher ids, which are then told of once too often, but not again and again.
-- `writer` is the process that wrote an event, so that it is not told of its own.
--
-- `shown` is the session as of the latest event that a list shows, next to what a list filters by; it is apart from
-- `sessions` because that row is rewritten with every append. A label is kept as one text, the JSON of key and value.
--
-- PostgreSQL's text holds no NUL. What may contain one is kept as bytes, or with U+FFFD in its place where it is only
-- searched. Text is compared by its bytes (COLLATE "C"): prefixes and places in a list mean the same everywhere.
--
-- Times in `…_ms` are milliseconds since 1970. Leases of instances are in the time of this database.

CREATE TABLE realms (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    generation bigint NOT NULL DEFAULT 0,
    config text NOT NULL DEFAULT '{}'
);

-- Only `seq` changes, and is in no index: the new version of a row stays on its page.
CREATE TABLE sessions (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    realm integer NOT NULL REFERENCES realms ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL DEFAULT 0,
    UNIQUE (realm, id)
) WITH (fillfactor = 50);

-- No foreign key: it would be checked row by row, and `append` and `erase` hold the lock of the session.
-- Deltas come and go: a table of millions is to be tidied up before a fifth of it is gone, which is the default.
CREATE TABLE events (
    session bigint NOT NULL,
    seq bigint NOT NULL,
    tx xid8 NOT NULL,
    writer bigint NOT NULL,
    realm integer NOT NULL,
    type text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (session, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

CREATE INDEX events_by_commit ON events (realm, tx);

CREATE TABLE shown (
    session bigint PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
    realm integer NOT NULL,
    id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    archived boolean NOT NULL,
    updated_ms bigint NOT NULL,
    principal text COLLATE "C",
    labels text[] NOT NULL,
    found_by text COLLATE "C" NOT NULL,
    body bytea NOT NULL
);

-- A page of a list begins where the page before ended (keyset).
CREATE INDEX shown_by_activity ON shown (realm, updated_ms, id);
CREATE INDEX shown_by_archive ON shown (realm, archived, updated_ms, id);
CREATE INDEX shown_by_principal ON shown (realm, principal, archived, updated_ms, id) WHERE principal IS NOT NULL;

CREATE TABLE labels (
    session bigint NOT NULL REFERENCES shown ON DELETE CASCADE,
    realm integer NOT NULL,
    label text COLLATE "C" NOT NULL,
    PRIMARY KEY (session, label)
);

CREATE INDEX labels_by_label ON labels (realm, label, session);

CREATE FUNCTION spread_labels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM labels WHERE session = new.session;
    INSERT INTO labels SELECT new.session, new.realm, label FROM unnest(new.labels) AS label;
    RETURN NULL;
END $$;

CREATE TRIGGER labels_added AFTER INSERT ON shown FOR EACH ROW
    WHEN (new.labels <> '{}') EXECUTE FUNCTION spread_labels();
CREATE TRIGGER labels_changed AFTER UPDATE OF labels ON shown FOR EACH ROW
    WHEN (new.labels <> old.labels) EXECUTE FUNCTION spread_labels();

CREATE TABLE claims (
    realm integer NOT NULL,
    key bytea NOT NULL,
    digest text NOT NULL,
    session bigint NOT NULL REFERENCES sessions ON DELETE CASCADE,
    turn_id text NOT NULL,
    created_ms bigint NOT NULL,
    PRIMARY KEY (realm, key)
);

CREATE INDEX claims_by_session ON claims (session);

CREATE TABLE streams (
    realm integer NOT NULL,
    id text COLLATE "C" NOT NULL,
    session bigint NOT NULL REFERENCES sessions ON DELETE CASCADE,
    used_ms bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (realm, id)
);

CREATE INDEX streams_by_session ON streams (session);
CREATE INDEX streams_by_use ON streams (realm, used_ms);

CREATE TABLE instances (
    realm integer NOT NULL REFERENCES realms ON DELETE CASCADE,
    incarnation text COLLATE "C" NOT NULL,
    instance_id text NOT NULL,
    host text NOT NULL,
    pid bigint NOT NULL,
    expires_ms bigint NOT NULL,
    PRIMARY KEY (realm, incarnation)
);

-- This moment by the clock of the database, which is everybody's.
CREATE FUNCTION now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

-- Write appends, in the order they were made; those that do not fit are left out, and the others enter all the same.
--
-- `ids` are their sessions, each once, in order. Of each append: `places` which of `ids`, `afters` the seq it follows (0 begins
-- a log), `lasts` its own last one; `gone_from` and `gone_to` the deltas it completes, from <= seq < to; and its claim:
-- `keys`, `digests`, `turns`, `times`. What none of them has may be NULL as a whole. Of each event: `event_of` which
-- append; of each session to show: `shown_of` likewise.
--
-- The first row of the answer is the transaction. One for each append that was left out follows: `refused` says which,
-- the rest is the claim that has its key, if its key is taken.
CREATE FUNCTION append(
    this_realm integer, this_writer bigint, durable boolean,
    ids text[],
    places integer[], afters bigint[], lasts bigint[], gone_from bigint[], gone_to bigint[],
    keys bytea[], digests text[], turns text[], times bigint[],
    event_of integer[], seqs bigint[], types text[], bodies bytea[],
    shown_of integer[], shown_seqs bigint[], states text[], updates bigint[], principals text[], labellings text[],
    findings text[], shown_bodies bytea[]
) RETURNS TABLE (tx bigint, refused integer, digest text, session_id text, turn_id text, created_ms bigint)
LANGUAGE plpgsql AS $$
DECLARE
    numbers bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(ids)]);
    heads bigint[] := numbers;
    fits boolean[] := array_fill(false, ARRAY[cardinality(places)]);
    all_fit boolean := true;
    place integer;
    number bigint;
    head bigint;
BEGIN
    IF NOT durable THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    ELSIF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    IF 0 = ANY (afters) THEN
        INSERT INTO sessions (realm, id)
        SELECT this_realm, ids[begun.place]
        FROM (SELECT DISTINCT p.place FROM unnest(places, afters) AS p (place, after) WHERE p.after = 0) AS begun
        ORDER BY ids[begun.place] COLLATE "C"
        ON CONFLICT DO NOTHING;
    END IF;
    FOR place, number, head IN
        SELECT named.place, locked.number, locked.seq
        FROM unnest(ids) WITH ORDINALITY AS named (id, place) CROSS JOIN LATERAL (
            SELECT sessions.number, sessions.seq FROM sessions
            WHERE sessions.realm = this_realm AND sessions.id = named.id FOR NO KEY UPDATE
        ) AS locked
    LOOP
        numbers[place] := number;
        heads[place] := head;
    END LOOP;
    IF keys IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(marks.mark) FROM (
            SELECT DISTINCT hashtextextended(encode(k.key, 'hex'), this_realm) AS mark
            FROM unnest(keys) AS k (key) WHERE k.key IS NOT NULL ORDER BY 1
        ) AS marks;
    END IF;

    FOR at IN 1 .. cardinality(places) LOOP
        place := places[at];
        IF heads[place] = afters[at] THEN
            fits[at] := true;
            IF keys[at] IS NOT NULL THEN
                INSERT INTO claims VALUES (this_realm, keys[at], digests[at], numbers[place], turns[at], times[at])
                ON CONFLICT DO NOTHING;
                fits[at] := FOUND;
            END IF;
        END IF;
        IF fits[at] THEN
            heads[place] := lasts[at];
        ELSE
            all_fit := false;
        END IF;
    END LOOP;

    INSERT INTO events
    SELECT numbers[places[e.at]], e.seq, pg_current_xact_id(), this_writer, this_realm, e.type, e.body
    FROM unnest(event_of, seqs, types, bodies) AS e (at, seq, type, body) WHERE fits[e.at];
    IF gone_from IS NOT NULL THEN
        FOR at IN 1 .. cardinality(places) LOOP
            CONTINUE WHEN gone_from[at] IS NULL OR NOT fits[at];
            DELETE FROM events
            WHERE events.session = numbers[places[at]] AND events.seq >= gone_from[at] AND events.seq < gone_to[at]
            AND events.type IN ('reasoning_delta', 'text_delta');
        END LOOP;
    END IF;
    UPDATE sessions SET seq = written.seq
    FROM unnest(numbers, heads) AS written (number, seq)
    WHERE sessions.number = written.number AND sessions.seq <> written.seq;
    IF shown_of IS NOT NULL THEN
        INSERT INTO shown
        SELECT DISTINCT ON (numbers[places[s.at]]) numbers[places[s.at]], this_realm, ids[places[s.at]], s.seq, s.state,
            s.state = 'archived', s.updated_ms, s.principal, string_to_array(s.labels, E'\n'), s.found_by, s.body
        FROM unnest(shown_of, shown_seqs, states, updates, principals, labellings, findings, shown_bodies)
            AS s (at, seq, state, updated_ms, principal, labels, found_by, body)
        WHERE fits[s.at] ORDER BY numbers[places[s.at]], s.at DESC
        ON CONFLICT (session) DO UPDATE SET
            seq = excluded.seq, state = excluded.state, archived = excluded.archived, updated_ms = excluded.updated_ms,
            principal = excluded.principal, labels = excluded.labels, found_by = excluded.found_by, body = excluded.body;
    END IF;

    RETURN QUERY SELECT pg_current_xact_id()::text::bigint, NULL::integer, NULL, NULL, NULL, NULL::bigint;
    IF all_fit THEN
        RETURN;
    END IF;
    DELETE FROM sessions WHERE sessions.number = ANY (numbers) AND sessions.seq = 0;
    RETURN QUERY
    SELECT NULL::bigint, misfit.at, claims.digest, sessions.id, claims.turn_id, claims.created_ms
    FROM generate_series(1, cardinality(places)) AS misfit (at)
    LEFT JOIN claims ON claims.realm = this_realm AND claims.key = keys[misfit.at]
    LEFT JOIN sessions ON sessions.number = claims.session
    WHERE NOT fits[misfit.at];
END $$;

-- Compare and set the config of a realm; `done` says whether it was at the expected generation (NULL: any).
CREATE FUNCTION put_config(this_realm integer, document text, expected bigint)
RETURNS TABLE (done boolean, generation bigint, config text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    RETURN QUERY UPDATE realms SET generation = realms.generation + 1, config = document
    WHERE number = this_realm AND (expected IS NULL OR realms.generation = expected)
    RETURNING true, realms.generation, realms.config;
    IF NOT FOUND THEN
        RETURN QUERY SELECT false, realms.generation, realms.config FROM realms WHERE number = this_realm;
    END IF;
END $$;

-- Remove a session and all that is its.
CREATE FUNCTION erase(this_realm integer, this_id text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    SELECT number INTO gone FROM sessions WHERE realm = this_realm AND id = this_id FOR UPDATE;
    IF FOUND THEN
        DELETE FROM events WHERE session = gone;
        DELETE FROM sessions WHERE number = gone;
    END IF;
END $$;
