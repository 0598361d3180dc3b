-- A database of version 0.1 as its own code made it, with a little of everything: what `test_migration.py` opens.

CREATE TABLE migrations (name VARCHAR NOT NULL);
INSERT INTO migrations VALUES ('first tables'), ('points of imports'), ('place in a container'), ('kept counts'),
    ('columns and tags');
CREATE TABLE meta (writer_epoch BIGINT NOT NULL, checks BIGINT NOT NULL);
INSERT INTO meta VALUES (3, 0);
CREATE TABLE datasets (id VARCHAR NOT NULL, name VARCHAR NOT NULL, root VARCHAR NOT NULL, format VARCHAR NOT NULL,
    annotations VARCHAR, sample_count BIGINT NOT NULL, scan_no BIGINT NOT NULL, vectors_job_id VARCHAR,
    created_at TIMESTAMP NOT NULL, vector_count BIGINT DEFAULT 0, placed_count BIGINT DEFAULT 0);
CREATE TABLE samples (dataset_id VARCHAR NOT NULL, ordinal BIGINT NOT NULL, sample_id VARCHAR NOT NULL,
    file_name VARCHAR NOT NULL, label VARCHAR, size_bytes BIGINT NOT NULL, mtime_ns BIGINT NOT NULL, place VARCHAR);
CREATE TABLE scans (id VARCHAR NOT NULL);
CREATE TABLE scan_files (scan_id VARCHAR NOT NULL, page BIGINT NOT NULL, position BIGINT NOT NULL,
    sample_id VARCHAR NOT NULL, file_name VARCHAR NOT NULL, label VARCHAR, size_bytes BIGINT NOT NULL,
    mtime_ns BIGINT NOT NULL, place VARCHAR);
CREATE TABLE jobs (id VARCHAR NOT NULL, number BIGINT NOT NULL, dataset_id VARCHAR NOT NULL, kind VARCHAR NOT NULL,
    status VARCHAR NOT NULL, phase VARCHAR NOT NULL, reason VARCHAR, attempt INTEGER NOT NULL,
    last_block BIGINT NOT NULL, seq BIGINT NOT NULL, total BIGINT NOT NULL, embedded BIGINT NOT NULL,
    reused BIGINT NOT NULL, skipped BIGINT NOT NULL, message VARCHAR NOT NULL, model_name VARCHAR, space_key VARCHAR,
    dimension INTEGER, force BOOLEAN NOT NULL, params VARCHAR NOT NULL, vectors_job_id VARCHAR,
    scan_no BIGINT NOT NULL, created_at TIMESTAMP NOT NULL, finished_at TIMESTAMP);
CREATE TABLE job_skips (job_id VARCHAR NOT NULL, position BIGINT NOT NULL, sample_id VARCHAR NOT NULL,
    file_name VARCHAR NOT NULL, reason VARCHAR NOT NULL, detail VARCHAR NOT NULL);
CREATE TABLE import_points (job_id VARCHAR NOT NULL, sample_id VARCHAR NOT NULL, x DOUBLE NOT NULL, y DOUBLE NOT NULL);
CREATE TABLE dataset_columns (dataset_id VARCHAR NOT NULL, name VARCHAR NOT NULL, type VARCHAR NOT NULL,
    column_id BIGINT NOT NULL);
CREATE TABLE column_texts (column_id BIGINT NOT NULL, sample_id VARCHAR NOT NULL, value VARCHAR NOT NULL);
CREATE TABLE column_numbers (column_id BIGINT NOT NULL, sample_id VARCHAR NOT NULL, value DOUBLE NOT NULL);
CREATE TABLE column_booleans (column_id BIGINT NOT NULL, sample_id VARCHAR NOT NULL, value BOOLEAN NOT NULL);
CREATE TABLE column_times (column_id BIGINT NOT NULL, sample_id VARCHAR NOT NULL, value TIMESTAMP NOT NULL);
CREATE TABLE tags (dataset_id VARCHAR NOT NULL, tag VARCHAR NOT NULL, sample_id VARCHAR NOT NULL);

CREATE TABLE embeddings (sample_id VARCHAR NOT NULL, dataset_id VARCHAR NOT NULL, model_name VARCHAR NOT NULL,
    vector FLOAT[768] NOT NULL, x DOUBLE, y DOUBLE, job_id VARCHAR NOT NULL, content_hash VARCHAR, size_bytes BIGINT,
    mtime_ns BIGINT);
CREATE TABLE embeddings_384 (sample_id VARCHAR NOT NULL, dataset_id VARCHAR NOT NULL, model_name VARCHAR NOT NULL,
    vector FLOAT[384] NOT NULL, x DOUBLE, y DOUBLE, job_id VARCHAR NOT NULL, content_hash VARCHAR, size_bytes BIGINT,
    mtime_ns BIGINT);
CREATE TABLE embeddings_24 (sample_id VARCHAR NOT NULL, dataset_id VARCHAR NOT NULL, model_name VARCHAR NOT NULL,
    vector FLOAT[24] NOT NULL, x DOUBLE, y DOUBLE, job_id VARCHAR NOT NULL, content_hash VARCHAR, size_bytes BIGINT,
    mtime_ns BIGINT);
CREATE TABLE stage (job_id VARCHAR NOT NULL, sample_id VARCHAR NOT NULL, vector FLOAT[768] NOT NULL,
    content_hash VARCHAR, size_bytes BIGINT, mtime_ns BIGINT);
CREATE TABLE stage_384 (job_id VARCHAR NOT NULL, sample_id VARCHAR NOT NULL, vector FLOAT[384] NOT NULL,
    content_hash VARCHAR, size_bytes BIGINT, mtime_ns BIGINT);
CREATE TABLE stage_24 (job_id VARCHAR NOT NULL, sample_id VARCHAR NOT NULL, vector FLOAT[24] NOT NULL,
    content_hash VARCHAR, size_bytes BIGINT, mtime_ns BIGINT);

-- `flowers` has four samples, vectors of five (a rescan has hidden one), a map, and a job that has staged two.
-- `weeds` has vectors and no map, and an import into `birds` has staged a vector with its point.
INSERT INTO datasets VALUES
    ('d-flowers', 'flowers', '/roots', 'folder', NULL, 4, 2, 'j-flowers', TIMESTAMP '2026-01-01', 4, 4),
    ('d-weeds', 'weeds', '/roots', 'folder', NULL, 2, 1, 'j-weeds', TIMESTAMP '2026-01-02', 2, 0),
    ('d-birds', 'birds', '/roots', 'folder', NULL, 2, 1, NULL, TIMESTAMP '2026-01-03', 0, 0);
INSERT INTO samples SELECT 'd-flowers', i, 'img/' || i || '.jpg', 'img/' || i || '.jpg', NULL, 100 + i, 1, NULL
    FROM range(4) t(i);
INSERT INTO samples SELECT 'd-' || name, i, 'img/' || i || '.jpg', 'img/' || i || '.jpg', NULL, 100 + i, 1, NULL
    FROM range(2) t(i), (VALUES ('weeds'), ('birds')) n(name);
INSERT INTO jobs VALUES
    ('j-flowers', 1, 'd-flowers', 'embed', 'complete', 'complete', NULL, 1, 1, 5, 5, 5, 0, 0, 'Embedded 5 images',
        'dinov2-small', 'space-a', 384, false, '{}', NULL, 1, TIMESTAMP '2026-01-01', TIMESTAMP '2026-01-01'),
    ('j-map', 2, 'd-flowers', 'reduce', 'complete', 'complete', NULL, 1, 0, 3, 5, 5, 0, 0, 'Placed 5 images', NULL,
        NULL, NULL, false, '{}', 'j-flowers', 1, TIMESTAMP '2026-01-01', TIMESTAMP '2026-01-01'),
    ('j-weeds', 3, 'd-weeds', 'embed', 'complete', 'complete', NULL, 1, 1, 5, 2, 2, 0, 0, 'Embedded 2 images',
        'dinov2-base', 'space-b', 768, false, '{}', NULL, 1, TIMESTAMP '2026-01-02', TIMESTAMP '2026-01-02'),
    ('j-going-on', 4, 'd-flowers', 'embed', 'running', 'running', NULL, 1, 1, 3, 4, 2, 0, 0, 'Embedding 2 of 4',
        'dinov2-small', 'space-a', 384, true, '{}', NULL, 2, TIMESTAMP '2026-01-03', NULL),
    ('j-import', 5, 'd-birds', 'import', 'running', 'running', NULL, 1, 1, 3, 2, 1, 0, 0, 'Receiving 1 of 2',
        'theirs', 'space-c', 24, false, '{}', NULL, 1, TIMESTAMP '2026-01-03', NULL);
INSERT INTO embeddings_384 SELECT 'img/' || i || '.jpg', 'd-flowers', 'dinov2-small',
    list_transform(range(384), lambda k: k + i + 1)::FLOAT[384], i, -i, 'j-flowers', 'hash-' || i, 100 + i, 1
    FROM range(5) t(i);
INSERT INTO embeddings SELECT 'img/' || i || '.jpg', 'd-weeds', 'dinov2-base',
    list_transform(range(768), lambda k: k - i - 1)::FLOAT[768], NULL, NULL, 'j-weeds', 'hash-' || i, 100 + i, 1
    FROM range(2) t(i);
INSERT INTO stage_384 SELECT 'j-going-on', 'img/' || i || '.jpg',
    list_transform(range(384), lambda k: k + i + 9)::FLOAT[384],
    'hash-' || i, 100 + i, 1 FROM range(2) t(i);
INSERT INTO stage_24 SELECT 'j-import', 'img/0.jpg', list_transform(range(24), lambda k: k + 1)::FLOAT[24],
    'imported:img/0.jpg', -1, -1;
INSERT INTO import_points VALUES ('j-import', 'img/0.jpg', 0.25, 0.75);
