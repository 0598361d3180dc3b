"""The database: one DuckDB file, every SQL statement, and every transaction."""
