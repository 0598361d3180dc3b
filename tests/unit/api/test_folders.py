"""Choosing a folder below the dataset roots."""

import pytest

from serve_app.api import folders
from serve_app.sources import subfolders
from tests.unit.api.conftest import png


async def listed(client, **query):
    answer = await client.get("/folders", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_roots_come_first_and_each_leads_down_and_up_again(client, root):
    top = await listed(client)
    assert [item["path"] for item in top["items"]] == [str(root)]
    assert (top["path"], top["parent"]) == (None, None)
    below = await listed(client, path=str(root))
    assert [(item["name"], item["images"]) for item in below["items"]] == [("flowers", 0)]
    assert below["parent"] is None
    flowers = await listed(client, path=below["items"][0]["path"])
    assert [(item["name"], item["images"]) for item in flowers["items"]] == [("rose", 2), ("tulip", 3)]
    assert flowers["parent"] == str(root)


async def test_a_folder_that_is_listed_can_be_registered(client, root):
    path = (await listed(client, path=str(root / "flowers")))["items"][0]["path"]
    answer = await client.post("/datasets", json={"name": "roses", "root": path})
    assert answer.json()["sample_count"] == 2


async def test_a_folder_outside_the_roots_is_refused_as_registration_refuses_it(client, root, tmp_path):
    (root / "out").symlink_to(tmp_path)
    for path in (tmp_path, "/etc", "/no/such", root / "out", f"{root}/../state"):
        registered = await client.post("/datasets", json={"name": "x", "root": str(path)})
        answer = await client.get("/folders", params={"path": str(path)})
        assert answer.status_code == registered.status_code == 403
        assert {**answer.json(), "request_id": ""} == {**registered.json(), "request_id": ""}


async def test_links_hidden_folders_and_files_are_no_folders(client, root, tmp_path):
    (root / "flowers" / ".hidden").mkdir()
    (root / "flowers" / "out").symlink_to(tmp_path)
    (root / "flowers" / "a.png").write_bytes(png())
    names = [item["name"] for item in (await listed(client, path=str(root / "flowers")))["items"]]
    assert names == ["rose", "tulip"]


async def test_many_folders_come_in_pages(client, root, monkeypatch):
    monkeypatch.setattr(folders, "PAGE", 2)
    for name in "edcba":
        (root / "many" / name).mkdir(parents=True)
    names, cursor, pages = [], "", 0
    while cursor is not None:
        page = await listed(client, path=str(root / "many"), cursor=cursor)
        names += [item["name"] for item in page["items"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert (names, pages) == ([*"abcde"], 3)


async def test_only_the_first_names_of_a_large_folder_are_read(client, root, monkeypatch):
    monkeypatch.setattr(subfolders, "LOOKED_AT", 2)
    counted = await listed(client, path=str(root / "flowers"))
    assert [item["images"] for item in counted["items"]] == [2, 2]


@pytest.mark.parametrize("path", ["flowers/rose/a.png", "flowers/none"], ids=["a-file", "not-there"])
async def test_what_is_no_folder_is_refused_with_the_reason(client, path):
    answer = await client.get("/folders", params={"path": path})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_folder_with_a_name_that_is_not_utf_8_is_left_out(client, root):
    (root / "flowers" / "b\udcff").mkdir()
    names = [item["name"] for item in (await listed(client, path=str(root / "flowers")))["items"]]
    assert names == ["rose", "tulip"]
