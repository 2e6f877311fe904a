-- The realms of one database, version 2: what sessions are found by, work that waits, duties, and the sealing key.
--
-- SEARCH. `findings` holds the words of one message each, and with seq 0 those of a session's title, opening and labels.
-- They come as words (`stores/searching.py`), and no text parser of PostgreSQL sees them, so that a search finds the same
-- in every store and whatever the database's locale is. Each is preceded by the number of its realm and a colon: in the
-- index the words of one realm lie together, and a search comes by no other realm's. There is no foreign key, as with
-- `events`. The index sorts new words in some at a time: by then they stand in a list, which every search looks through.
-- With 2 MB of it that takes less than 0.5 ms, and adding a message of 100 words a third of what it does without.
-- `unsearched` are the sessions from before version 2 whose words are not here yet; whoever opens a realm sees to it.
--
-- READY. `shown.ready_ms` is the session's, by the clock of the machine that wrote it. `reserved_until_ms` says how long
-- nobody else is told that it waits, in the time of this database; when it waits for something else, it is anybody's.
--
-- `claims.whole_key` is there for keys that are known by their hash; `sessions.principal`, which never changes, for who
-- looks up ids of sessions of their own.

ALTER TABLE realms ADD COLUMN sealing_key bytea;
ALTER TABLE claims ADD COLUMN whole_key bytea;
ALTER TABLE shown
    DROP COLUMN found_by,
    ADD COLUMN ready_ms bigint,
    ADD COLUMN reserved_until_ms bigint NOT NULL DEFAULT 0;

ALTER TABLE sessions ADD COLUMN principal text COLLATE "C";
UPDATE sessions SET principal = shown.principal FROM shown
WHERE shown.session = sessions.number AND shown.principal IS NOT NULL;

CREATE INDEX claims_by_age ON claims (realm, created_ms);
CREATE INDEX sessions_by_name ON sessions (realm, lower(id));
CREATE INDEX sessions_by_principal ON sessions (realm, principal, id) WHERE principal IS NOT NULL;
CREATE INDEX shown_by_readiness ON shown (realm, ready_ms, id) WHERE ready_ms IS NOT NULL;

-- Most sessions are idle or archived; the others are found without looking at those.
CREATE INDEX shown_by_state ON shown (realm, state, updated_ms, id)
    WHERE state IN ('running', 'stopping', 'waiting', 'suspended');

CREATE TABLE findings (
    session bigint NOT NULL,
    seq bigint NOT NULL,
    words tsvector NOT NULL,
    PRIMARY KEY (session, seq)
);

CREATE INDEX findings_by_word ON findings USING gin (words) WITH (gin_pending_list_limit = 2048);

CREATE TABLE unsearched (
    session bigint PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
    realm integer NOT NULL
);

INSERT INTO unsearched (session, realm) SELECT number, realm FROM sessions;
CREATE INDEX unsearched_by_realm ON unsearched (realm, session);

-- Who of a realm does something; times in that of this database, as with instances.
CREATE TABLE duties (
    realm integer NOT NULL REFERENCES realms ON DELETE CASCADE,
    duty text COLLATE "C" NOT NULL,
    incarnation text COLLATE "C" NOT NULL,
    until_ms bigint NOT NULL,
    PRIMARY KEY (realm, duty)
);

-- Who was let in to the tables there were is let in to the new ones.
DO $$
DECLARE
    allowed record;
BEGIN
    FOR allowed IN
        SELECT CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS who, privilege_type AS what
        FROM pg_class CROSS JOIN aclexplode(relacl) WHERE oid = 'events'::regclass AND grantee <> relowner
    LOOP
        EXECUTE format('GRANT %s ON findings, unsearched, duties TO %s', allowed.what, allowed.who);
    END LOOP;
END $$;

DROP FUNCTION append;

-- As in version 1, and: `whole_keys` are those of `keys` that are hashes, else NULL; `readies` is since when something
-- waits. Of each text that is searched: `finding_of` which append, its `finding_seqs` (0 for what a list shows), and its
-- words, with spaces between them.
CREATE FUNCTION append(
    this_realm integer, this_writer bigint, durable boolean,
    ids text[],
    places integer[], afters bigint[], lasts bigint[], gone_from bigint[], gone_to bigint[],
    keys bytea[], whole_keys bytea[], digests text[], turns text[], times bigint[],
    event_of integer[], seqs bigint[], types text[], bodies bytea[],
    shown_of integer[], shown_seqs bigint[], states text[], updates bigint[], principals text[], labellings text[],
    readies bigint[], shown_bodies bytea[],
    finding_of integer[], finding_seqs bigint[], finding_words text[]
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
        INSERT INTO sessions (realm, id, principal)
        SELECT DISTINCT ON (ids[places[s.at]] COLLATE "C") this_realm, ids[places[s.at]], s.principal
        FROM unnest(shown_of, principals) AS s (at, principal) WHERE afters[s.at] = 0
        ORDER BY ids[places[s.at]] COLLATE "C", s.at
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
                INSERT INTO claims (realm, key, whole_key, digest, session, turn_id, created_ms)
                VALUES (this_realm, keys[at], whole_keys[at], digests[at], numbers[place], turns[at], times[at])
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
            (session, realm, id, seq, state, archived, updated_ms, principal, labels, ready_ms, body)
        SELECT DISTINCT ON (numbers[places[s.at]]) numbers[places[s.at]], this_realm, ids[places[s.at]], s.seq, s.state,
            s.state = 'archived', s.updated_ms, s.principal, string_to_array(s.labels, E'\n'), s.ready_ms, s.body
        FROM unnest(shown_of, shown_seqs, states, updates, principals, labellings, readies, shown_bodies)
            AS s (at, seq, state, updated_ms, principal, labels, ready_ms, body)
        WHERE fits[s.at] ORDER BY numbers[places[s.at]], s.at DESC
        ON CONFLICT (session) DO UPDATE SET
            seq = excluded.seq, state = excluded.state, archived = excluded.archived, updated_ms = excluded.updated_ms,
            principal = excluded.principal, labels = excluded.labels, ready_ms = excluded.ready_ms, body = excluded.body,
            reserved_until_ms =
                CASE WHEN excluded.ready_ms = shown.ready_ms THEN shown.reserved_until_ms ELSE 0 END;
    END IF;
    IF finding_of IS NOT NULL THEN
        INSERT INTO findings (session, seq, words)
        SELECT DISTINCT ON (1, 2) numbers[places[f.at]], f.seq, array_to_tsvector(string_to_array(f.words, ' '))
        FROM unnest(finding_of, finding_seqs, finding_words) AS f (at, seq, words)
        WHERE fits[f.at] ORDER BY 1, 2, f.at DESC
        ON CONFLICT (session, seq) DO UPDATE SET words = excluded.words WHERE findings.words <> excluded.words;
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

-- Remove a session and all that is its.
CREATE OR REPLACE FUNCTION erase(this_realm integer, this_id text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    SELECT number INTO gone FROM sessions WHERE realm = this_realm AND id = this_id FOR UPDATE;
    IF FOUND THEN
        DELETE FROM events WHERE session = gone;
        DELETE FROM findings WHERE session = gone;
        DELETE FROM sessions WHERE number = gone;
    END IF;
END $$;

-- Remove some of a realm: at most so many rows of the large tables, then the realm itself. Whether there is more.
CREATE FUNCTION destroy(this_realm integer, most integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    gone bigint[];
    rows bigint;
BEGIN
    gone := ARRAY(SELECT number FROM sessions WHERE realm = this_realm ORDER BY id LIMIT 100 FOR UPDATE);
    IF gone <> '{}' THEN
        DELETE FROM events WHERE (session, seq) IN (
            SELECT session, seq FROM events WHERE session = ANY (gone) LIMIT most
        );
        GET DIAGNOSTICS rows = ROW_COUNT;
        IF rows < most THEN
            DELETE FROM findings WHERE session = ANY (gone);
            DELETE FROM sessions WHERE number = ANY (gone);
        END IF;
        RETURN true;
    END IF;
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM FROM realms WHERE number = this_realm FOR UPDATE;  -- from here on nobody adds a session
    IF EXISTS (SELECT FROM sessions WHERE realm = this_realm) THEN
        RETURN true;
    END IF;
    DELETE FROM realms WHERE number = this_realm;
    RETURN false;
END $$;

-- Take deltas out of a log (`without`), and put others in the place of some events. `finding_seqs` are those of them
-- whose text is searched. Nothing is done if an event is of another type than that it is to take the place of; these are
-- the answer. Transaction and writer of an event stay, so that nobody is told.
CREATE FUNCTION tidy(
    this_realm integer, this_id text, without bigint[],
    seqs bigint[], types text[], bodies bytea[], finding_seqs bigint[], finding_words text[]
) RETURNS TABLE (place bigint, is_type text) LANGUAGE plpgsql AS $$
DECLARE
    this_session bigint;
    last bigint;
BEGIN
    SELECT sessions.number, sessions.seq INTO this_session, last FROM sessions
    WHERE sessions.realm = this_realm AND sessions.id = this_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT events.seq, events.type FROM unnest(seqs, types) AS new (seq, type)
    JOIN events ON events.session = this_session AND events.seq = new.seq
    WHERE events.seq < last AND events.type <> new.type;
    IF FOUND THEN
        RETURN;
    END IF;
    DELETE FROM events
    WHERE events.session = this_session AND events.seq = ANY (without) AND events.seq < last
    AND events.type IN ('reasoning_delta', 'text_delta');
    UPDATE events SET body = new.body FROM unnest(seqs, bodies) AS new (seq, body)
    WHERE events.session = this_session AND events.seq = new.seq AND events.seq < last;
    UPDATE findings SET words = array_to_tsvector(string_to_array(new.words, ' '))
    FROM unnest(finding_seqs, finding_words) AS new (seq, words)
    WHERE findings.session = this_session AND findings.seq = new.seq AND findings.seq < last;
END $$;

-- Keep a claim, unless its key is there; whether there is such a session.
CREATE FUNCTION put_claim(
    this_realm integer, this_key bytea, whole bytea, this_digest text, this_id text, this_turn text, made_ms bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    this_session bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    SELECT number INTO this_session FROM sessions WHERE realm = this_realm AND id = this_id FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO claims (realm, key, whole_key, digest, session, turn_id, created_ms)
    VALUES (this_realm, this_key, whole, this_digest, this_session, this_turn, made_ms) ON CONFLICT DO NOTHING;
    RETURN true;
END $$;

-- The sealing key of a realm: the one there is, or else the one that is offered.
CREATE FUNCTION sealing_key(this_realm integer, offered bytea) RETURNS bytea LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    UPDATE realms SET sealing_key = offered WHERE number = this_realm AND realms.sealing_key IS NULL;
    RETURN (SELECT realms.sealing_key FROM realms WHERE number = this_realm);
END $$;
