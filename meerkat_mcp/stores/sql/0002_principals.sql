-- Version 2: sessions are found by who began them.
--
-- The session's JSON says it; the column only reads it there, so that a list of one principal's sessions is as fast as
-- a list of all. Sessions of no principal, all of them on a laptop, take no room in the index.

ALTER TABLE sessions ADD COLUMN principal TEXT
    GENERATED ALWAYS AS (json_extract(CAST(body AS TEXT), '$.principal')) VIRTUAL;

CREATE INDEX sessions_by_principal ON sessions (principal, archived, updated_ms, id, state)
    WHERE principal IS NOT NULL;
