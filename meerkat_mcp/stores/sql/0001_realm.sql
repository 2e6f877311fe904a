-- The file of a realm, version 1.
--
-- A session is its log, and the log is the table `events`. `position` is the order of commits in the whole file, over
-- all sessions and processes (they write one at a time), so one scan of what lies behind a position tells everything
-- that happened since, however many sessions there are. Positions and session numbers are AUTOINCREMENT, that is never
-- given twice: a deleted session would otherwise free the highest ones, and a reader that is already past them would
-- miss the events that took their places, or a writer that remembers a number write into a stranger's log. It costs
-- 3 % of the appends.
--
-- The fence stands here and not in a program. Events are added through the view `log`, and each says which seq it
-- follows: that must be the last one of its session. The last one is always there, since superseded deltas are removed by
-- an append that adds an event after them; so a stale writer is refused even where a hole would have room for it.
-- Between the events of one append there may be holes, in a fork. Fence and foreign key cost a sixth of the appends.
-- The view is a fence in another way too: a migration that programs of today must not write through, while they still
-- run, renames it; they then find `user_version` higher than they know, and say so.
--
-- `sessions` keeps the session as JSON as of the latest event that a list shows, next to what a list filters by.
-- `found_by` is the text that a query is looked for in, caseless. `labels` is kept twice: as JSON, and spread out in
-- the table `labels` by two triggers. Everything a session owns goes with its row.
--
-- All times are milliseconds since 1970. All ids are as the program shows them.

CREATE TABLE sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL DEFAULT 'new',
    archived INTEGER NOT NULL DEFAULT 0,
    updated_ms INTEGER NOT NULL DEFAULT 0,
    labels TEXT NOT NULL DEFAULT '{}',
    found_by TEXT NOT NULL DEFAULT '',
    body BLOB NOT NULL DEFAULT '{}'
);

-- A page of a list begins where the page before ended (keyset); `state` is there to be filtered by without the row.
CREATE INDEX sessions_by_activity ON sessions (updated_ms, id, state);
CREATE INDEX sessions_by_archive ON sessions (archived, updated_ms, id, state);

CREATE TABLE events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    type TEXT NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (session, seq)
);

CREATE VIEW log AS SELECT session, NULL AS after, seq, type, body FROM events;

CREATE TRIGGER fence INSTEAD OF INSERT ON log
BEGIN
    SELECT raise(ABORT, 'the event does not follow the last one')
    WHERE new.seq <= new.after
    OR new.after <> (SELECT coalesce(max(seq), 0) FROM events WHERE session = new.session);
    INSERT INTO events (session, seq, type, body) VALUES (new.session, new.seq, new.type, new.body);
END;

CREATE TABLE labels (
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (session, key)
) WITHOUT ROWID;

CREATE INDEX labels_by_value ON labels (key, value);

CREATE TRIGGER labels_added AFTER INSERT ON sessions
BEGIN
    INSERT INTO labels SELECT new.number, key, value FROM json_each(new.labels);
END;

CREATE TRIGGER labels_changed AFTER UPDATE OF labels ON sessions WHEN new.labels <> old.labels
BEGIN
    DELETE FROM labels WHERE session = new.number;
    INSERT INTO labels SELECT new.number, key, value FROM json_each(new.labels);
END;

CREATE TABLE claims (
    key TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    turn_id TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX claims_by_session ON claims (session);

CREATE TABLE streams (
    id TEXT PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    used_ms INTEGER NOT NULL,
    body BLOB NOT NULL
) WITHOUT ROWID;

CREATE INDEX streams_by_session ON streams (session);
CREATE INDEX streams_by_use ON streams (used_ms);

CREATE TABLE instances (
    incarnation TEXT PRIMARY KEY,
    instance_id TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- One row. `erasing` says that bytes of deleted sessions may still lie in unused parts of the file.
CREATE TABLE realm (
    generation INTEGER NOT NULL,
    config TEXT NOT NULL,
    erasing INTEGER NOT NULL
);

INSERT INTO realm VALUES (0, '{}', 0);
