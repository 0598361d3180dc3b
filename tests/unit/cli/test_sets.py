"""`--model` names the set that a command is about."""

import json

import pyarrow.parquet as pq

from serve_app.cli.dataset_commands import known_model


def test_commands_ask_the_vectors_of_the_model_that_is_named(run, service, flowers, tmp_path):
    assert run("embed", flowers).exit_code == 0
    imported = run("import", "flowers", "flowers.parquet", "--model-name", "mine", "--space-key", "mine/1")
    assert imported.exit_code == 0, imported.stderr
    rows = [line.split("\t")[2:5] for line in run("status").stdout.splitlines()[2:]]
    assert rows == [["4", "mine", "yes"], ["4", "dinov2-base", "yes"]]
    [row] = [line.split("\t") for line in run("status", "--model", "dinov2-base").stdout.splitlines()[2:]]
    assert row[3] == "dinov2-base"
    [found] = json.loads(run("status", "--json").stdout)["datasets"]
    assert [made["model_name"] for made in found["sets"]] == ["mine", "dinov2-base"]

    for options, model in (((), "mine"), (("--model", "dinov2-base"), "dinov2-base")):
        assert run("export", "flowers", "--out", "out.parquet", *options).exit_code == 0
        assert set(pq.read_table(tmp_path / "out.parquet")["model_name"].to_pylist()) == {model}
    query = flowers / "rose" / "a.png"
    assert run("search", "flowers", query, "--model", "dinov2-base").stdout.splitlines()[1].endswith("rose/a.png")
    refused = run("search", "flowers", query)
    assert (refused.exit_code, "'mine', which this service cannot run" in refused.stderr) == (1, True)
    [x, y] = pq.read_table(tmp_path / "out.parquet", columns=["x", "y"]).slice(0, 1).to_pydict().values()
    around = ", ".join(f"{x[0] + dx}, {y[0] + dy}" for dx, dy in ((-0.1, -0.1), (0.1, -0.1), (0.1, 0.1), (-0.1, 0.1)))
    choice = ("near", "--where", f"inside({around})", "--model", "dinov2-base")
    assert run("tag", "flowers", *choice).stdout == "Put 'near' on 1 image.\n"
    assert run("untag", "flowers", *choice).stdout == "Took 'near' off 1 image.\n"
    for command in ("tag", "untag"):
        assert "no map yet" in run(command, "flowers", *choice[:3], "--model", "unheard of").stderr
    for question in ("duplicates", "outliers", "diverse"):
        assert run(question, "flowers", "--model", "dinov2-base").exit_code == 0
        refused = run(question, "flowers", "--model", "unheard of")
        assert (refused.exit_code, "'mine', 'dinov2-base'" in refused.stderr) == (2, True), question


def test_the_folder_of_a_checkpoint_becomes_absolute_and_a_name_stays(tmp_path, monkeypatch):
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert known_model("models/tiny?pooling=mean") == f"{tmp_path}/models/tiny?pooling=mean"
    for name in ("siglip2-base", "tiny", "gone/tiny", "a model of mine", "x?pooling=mean"):
        assert known_model(name) == name


def test_one_set_is_listed_and_deleted_and_the_others_stay(run, service, flowers):
    assert run("embed", flowers).exit_code == 0
    assert run("import", "flowers", "flowers.parquet", "--model-name", "mine", "--space-key", "mine/1").exit_code == 0
    assert [line.split("\t") for line in run("sets", "flowers").stdout.splitlines()] == [
        ["model", "vectors", "map"],
        ["mine", "4", "yes"],
        ["dinov2-base", "4", "yes"],
    ]
    assert [made["model_name"] for made in json.loads(run("sets", "flowers", "--json").stdout)] == [
        "mine",
        "dinov2-base",
    ]
    assert "say which set" in run("delete", "flowers").stderr
    assert run("delete", "flowers", "--model", "dinov2-base").stdout == "Deleted 4 vectors of dinov2-base.\n"
    assert [row.split("\t")[0] for row in run("sets", "flowers").stdout.splitlines()[1:]] == ["mine"]
    refused = run("delete", "flowers", "--model", "dinov2-base")
    assert (refused.exit_code, "dinov2-base" in refused.stderr) == (2, True)
