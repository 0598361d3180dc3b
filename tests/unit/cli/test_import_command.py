import pyarrow as pa
import pyarrow.parquet as pq


def test_what_was_exported_is_imported_again(run, service, flowers):
    assert run("embed", flowers).exit_code == 0
    result = run("import", "flowers", "flowers.parquet")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("Imported vectors of 4 images\n")


def test_rows_that_cannot_be_imported_are_told(run, service, flowers, tmp_path):
    assert run("embed", flowers).exit_code == 0
    rows = pa.table({"sample_id": ["rose/a.png", "nobody"], "vector": [[1.0, 2.0], [3.0, 4.0]]})
    pq.write_table(rows, tmp_path / "two.parquet")
    result = run("import", "flowers", "two.parquet", "--space-key", "s", "--model-name", "m")
    assert result.exit_code == 0, result.stderr
    assert "Skipped 1 row:" in result.stdout
    assert "unknown_sample: nobody" in result.stdout
    assert run("import", "flowers", "gone.parquet").exit_code == 2
    pq.write_table(rows.slice(1), tmp_path / "none.parquet")
    result = run("import", "flowers", "none.parquet", "--space-key", "s", "--model-name", "m")
    assert (result.exit_code, "no_valid_rows" in result.stderr) == (1, True)
