"""The database: one DuckDB file, every SQL statement, and the transactions that keep its promises."""
