-- Version 1 of a store's schema. Run once, in a transaction that has the schema alone in its search path.

-- Where the history is. Raised by each commit under a lock on its row, so that commits are seen in the order of their revisions.
CREATE TABLE head (
    one boolean PRIMARY KEY CHECK (one),
    revision bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
INSERT INTO head VALUES (true, 0);

-- From this revision on the history is whole: what was replaced later is in old, what was written later in log.
CREATE TABLE kept (
    one boolean PRIMARY KEY CHECK (one),
    oldest bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO kept VALUES (true, 0);

-- The rows of the newest state. Bytes are compared as bytes, whatever the collation. Half of a row's writes replace its
-- value, and need no index entry where there is room on its page.
CREATE TABLE rows (
    key bytea PRIMARY KEY,
    written bigint NOT NULL,
    value bytea NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- What they were: a version was there from written on, and not any more at replaced.
CREATE TABLE old (
    key bytea NOT NULL,
    written bigint NOT NULL,
    replaced bigint NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (key, written)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX old_replaced ON old (replaced);

-- Which keys each commit wrote. The values are in rows and old, by the revision: a key that is in neither was removed.
CREATE TABLE log (
    revision bigint NOT NULL,
    key bytea NOT NULL,
    PRIMARY KEY (revision, key)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- One per sender of commits, moved by each of its batches: who has lost an answer finds it here.
CREATE TABLE marks (
    name bytea PRIMARY KEY,
    number bigint NOT NULL,
    -- Of the batch of this number. Null: it was not done, and will not be.
    outcomes bigint[],
    moved timestamptz NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- When the history was where, for who forgets what is old.
CREATE TABLE moments (
    at timestamptz NOT NULL,
    revision bigint NOT NULL
);

-- Each has one row: the server would take them for large.
ANALYZE head, kept;

-- Which of some commits read what has changed since, as numbers from 1 on. A commit has a snapshot, and keys and ranges that name it by
-- its number.
CREATE FUNCTION changed(
    snapshots bigint[], key_of int[], read_keys bytea[], range_of int[], lows bytea[], highs bytea[]
) RETURNS int[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT coalesce(array_agg(DISTINCT found.number), '{}') FROM (
        SELECT k.number FROM unnest(key_of, read_keys) AS k(number, key)
        WHERE EXISTS (SELECT FROM rows WHERE rows.key = k.key AND rows.written > snapshots[k.number])
            OR (SELECT old.replaced FROM old WHERE old.key = k.key ORDER BY old.written DESC LIMIT 1) > snapshots[k.number]
        UNION ALL
        SELECT r.number FROM unnest(range_of, lows, highs) AS r(number, low, high)
        WHERE EXISTS (
            SELECT FROM log WHERE log.revision > snapshots[r.number] AND log.key >= r.low AND log.key < r.high
        )
    ) AS found);
END
$$;

-- Does a batch of commits: none writes, or has read, what one before it in the batch writes. Gives for each its revision, 0 when what it
-- read has changed since, -1 when its snapshot is too old to tell. Null: the mark was not where the batch before left it, and nothing
-- is done.
CREATE FUNCTION commit_batch(
    mark bytea, mark_number bigint,
    snapshots bigint[], key_of int[], read_keys bytea[], range_of int[], lows bytea[], highs bytea[],
    write_of int[], write_keys bytea[], write_values bytea[]
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    newest bigint;
    oldest bigint;
    mark_was bigint;
    refused int[] := '{}';
    results bigint[];
BEGIN
    -- Each statement from here on sees all that was committed before the lock was given.
    SELECT head.revision INTO STRICT newest FROM head WHERE head.one FOR NO KEY UPDATE;
    SELECT marks.number INTO mark_was FROM marks WHERE marks.name = mark FOR NO KEY UPDATE;
    IF mark_was IS DISTINCT FROM mark_number - 1 THEN
        RETURN NULL;
    END IF;
    SELECT kept.oldest INTO STRICT oldest FROM kept WHERE kept.one;
    -- What a snapshot of the newest state has is so still.
    IF newest > ANY (snapshots) THEN
        refused := changed(snapshots, key_of, read_keys, range_of, lows, highs);
    END IF;
    SELECT array_agg(CASE WHEN ranked.verdict < 1 THEN ranked.verdict ELSE newest + ranked.rank END ORDER BY ranked.number)
    INTO results FROM (
        SELECT judged.number, judged.verdict, sum(greatest(judged.verdict, 0)) OVER (ORDER BY judged.number) AS rank FROM (
            SELECT s.number, CASE
                WHEN s.snapshot IS NULL THEN 1
                WHEN s.snapshot < oldest OR s.snapshot > newest THEN -1
                WHEN s.number = ANY (refused) THEN 0
                ELSE 1
            END AS verdict FROM unnest(snapshots) WITH ORDINALITY AS s(snapshot, number)
        ) AS judged
    ) AS ranked;

    INSERT INTO old (key, written, replaced, value)
        SELECT was.key, was.written, results[w.number], was.value
        FROM unnest(write_of, write_keys) AS w(number, key)
        -- Planned while the table is empty, a plain join would read all of it from then on.
        CROSS JOIN LATERAL (
            SELECT rows.key, rows.written, rows.value FROM rows WHERE rows.key = w.key OFFSET 0
        ) AS was
        WHERE results[w.number] > 0;
    DELETE FROM rows WHERE rows.key = ANY (ARRAY(
        SELECT w.key FROM unnest(write_of, write_keys, write_values) AS w(number, key, value)
        WHERE w.value IS NULL AND results[w.number] > 0
    ));
    INSERT INTO rows (key, written, value)
        SELECT w.key, results[w.number], w.value
        FROM unnest(write_of, write_keys, write_values) AS w(number, key, value)
        WHERE w.value IS NOT NULL AND results[w.number] > 0
        ON CONFLICT (key) DO UPDATE SET written = excluded.written, value = excluded.value;
    INSERT INTO log (revision, key)
        SELECT results[w.number], w.key FROM unnest(write_of, write_keys) AS w(number, key)
        WHERE results[w.number] > 0;
    UPDATE head SET revision = greatest(newest, (SELECT max(o.outcome) FROM unnest(results) AS o(outcome))) WHERE head.one;
    UPDATE marks SET number = mark_number, outcomes = results, moved = now() WHERE marks.name = mark;
    RETURN results;
END
$$;

-- Sees to it that the batch that a mark was sent with is done by now or never will be, and gives what became of it: null if it was not
-- done. It writes in any case, so that with its own end all before it is where commits have to be: on the disks of standbys, too. One
-- that comes late, when the mark is further already, changes nothing.
CREATE FUNCTION settle(mark bytea, mark_number bigint) RETURNS bigint[] LANGUAGE sql AS $$
    INSERT INTO marks AS m (name, number, outcomes, moved) VALUES (mark, mark_number, NULL, now())
    ON CONFLICT (name) DO UPDATE SET
        number = greatest(m.number, mark_number),
        outcomes = CASE WHEN m.number >= mark_number THEN m.outcomes END,
        moved = now()
    RETURNING m.outcomes
$$;
