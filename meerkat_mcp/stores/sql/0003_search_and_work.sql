-- Version 3: sessions are found by what was said in them, by what waits in them, and by who works on them.
--
-- `said` keeps the words of each prompt and reply (`searching.spelled`: the different ones, each after a space), and
-- `sessions.found_by` those of title, opening and labels. They are the truth that a search goes by. An index of them,
-- the FTS5 table `search`, is made by whoever opens the file with a library that has FTS5, and `indexed` says whether
-- it tells everything: a library without FTS5 can write all the same, and takes the note away. The index keeps no text
-- of its own and no places of words (contentless, detail=none: 90 bytes a message, 20 us an append). A word is taken
-- out of it by saying what is in it, so `said` is needed for that, too; and because a program of version 2 that still
-- runs may delete a session and knows no index, deleting one takes the note away, and who can puts it back.
-- The rows of the index are numbered 2 * position for a message, whose session `said_in` tells (a few bytes a row, so
-- that thousands of hits are told apart in a few pages), and 2 * number + 1 for a session itself.
--
-- `doing` is the state of a session that is not at rest: of the few among many that something is done in, or waits.
-- `ready_ms` is since when something waits there for a process, `reserved_ms` until when one was told of it.
--
-- The view is renamed because a program of version 2 that still runs must not add events that are found by nothing.

DROP VIEW log;

CREATE VIEW logged AS SELECT session, NULL AS after, seq, type, body FROM events;

CREATE TRIGGER fence INSTEAD OF INSERT ON logged
BEGIN
    SELECT raise(ABORT, 'the event does not follow the last one')
    WHERE new.seq <= new.after
    OR new.after <> (SELECT coalesce(max(seq), 0) FROM events WHERE session = new.session);
    INSERT INTO events (session, seq, type, body) VALUES (new.session, new.seq, new.type, new.body);
END;

CREATE TABLE said (
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    position INTEGER NOT NULL,
    words TEXT NOT NULL,
    PRIMARY KEY (session, position)
) WITHOUT ROWID;

CREATE TABLE said_in (
    position INTEGER PRIMARY KEY,
    session INTEGER NOT NULL
);

CREATE TRIGGER unsaid AFTER DELETE ON said
BEGIN
    DELETE FROM said_in WHERE position = old.position;
END;

ALTER TABLE realm ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0;

CREATE TRIGGER index_left BEFORE DELETE ON sessions
BEGIN
    UPDATE realm SET indexed = 0;
END;

ALTER TABLE sessions ADD COLUMN doing TEXT
    GENERATED ALWAYS AS (CASE WHEN state IN ('new', 'idle', 'archived') THEN NULL ELSE state END) VIRTUAL;

CREATE INDEX sessions_by_doing ON sessions (doing) WHERE doing IS NOT NULL;

ALTER TABLE sessions ADD COLUMN ready_ms INTEGER
    GENERATED ALWAYS AS (json_extract(CAST(body AS TEXT), '$.ready_ms')) VIRTUAL;

ALTER TABLE sessions ADD COLUMN reserved_ms INTEGER NOT NULL DEFAULT 0;

CREATE INDEX sessions_by_readiness ON sessions (ready_ms, id, reserved_ms) WHERE ready_ms IS NOT NULL;

CREATE INDEX sessions_of_principal ON sessions (principal, id) WHERE principal IS NOT NULL;

CREATE INDEX claims_by_age ON claims (created_ms);

-- Which process does what only one of them should, and until when.
CREATE TABLE duties (
    duty TEXT PRIMARY KEY,
    incarnation TEXT NOT NULL,
    until_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Seals what a client keeps for us; made when first asked for.
ALTER TABLE realm ADD COLUMN sealing_key BLOB;
