"""Findings: queues that are worked through, mostly with the keyboard."""

import csv
import io

import pytest
from playwright.sync_api import expect


@pytest.fixture
def queue(visit):
    """The findings, once their first queue is there."""
    visit.button("Findings").click()
    queue = visit.page.locator("#findings")
    expect(queue.locator(".position")).to_contain_text("1 of ")
    return queue


def expected_groups(album, where=None):
    return album.kept(0.95, "largest", where)


def test_near_duplicates_are_dropped_one_group_after_the_other_by_key(visit, queue, album, shoot):
    groups = expected_groups(album)
    expect(queue.locator(".position")).to_have_text(f"1 of {len(groups)}")
    expect(queue.locator("figure")).to_have_count(len(groups[0]))
    expect(queue.locator("figure").first).to_contain_text("Keep: the largest")
    shoot("findings-duplicates")
    visit.page.keyboard.press("a")
    expect(queue.locator(".position")).to_have_text(f"2 of {len(groups)}")
    assert album.tags["drop"] == {item["sample_id"] for item in groups[0][1:]}
    visit.page.keyboard.press("s")
    expect(queue.locator(".position")).to_have_text(f"3 of {len(groups)}")
    visit.page.keyboard.press("ArrowLeft")
    expect(queue.locator(".position")).to_have_text(f"2 of {len(groups)}")
    expect(queue.locator("progress")).to_have_js_property("value", 2)
    visit.page.keyboard.press("z")
    expect(queue.locator(".position")).to_have_text(f"1 of {len(groups)}")
    expect(queue.locator("progress")).to_have_js_property("value", 1)
    assert album.tags["drop"] == set()


def test_an_image_that_is_unticked_keeps_its_place(visit, queue, album):
    group = next(group for group in expected_groups(album) if len(group) > 2)
    number = expected_groups(album).index(group)
    for _ in range(number):
        visit.page.keyboard.press("j")
    expect(queue.locator(".position")).to_contain_text(f"{number + 1} of ")
    queue.get_by_role("checkbox").nth(1).uncheck()
    visit.page.keyboard.press("a")
    expect(queue.locator(".position")).to_contain_text(f"{number + 2} of ")
    assert album.tags["drop"] == {item["sample_id"] for item in group[2:]}


def test_an_address_shows_a_colleague_the_same_finding(visit, queue, album, page):
    queue.get_by_role("button", name="Leaks").click()
    items = album.leaks("split", 0.95, None)
    expect(queue.locator(".position")).to_have_text(f"1 of {len(items)}")
    visit.page.keyboard.press("j")
    expect(queue.locator(".position")).to_have_text(f"2 of {len(items)}")
    expect(queue.locator("figure").first).to_contain_text(f"split: {items[1]['value']}")
    page.goto(page.url)
    expect(queue.locator(".position")).to_have_text(f"2 of {len(items)}")
    expect(queue.get_by_role("button", name="Leaks")).to_have_attribute("aria-pressed", "true")
    visit.page.keyboard.press("a")
    expect(queue.locator(".position")).to_have_text(f"3 of {len(items)}")
    assert album.tags["leak"] == {items[1]["sample_id"]}
    visit.button("Map").click()
    assert "finding" not in page.url


def test_a_doubtful_label_is_shown_with_what_its_neighbours_say(visit, queue, album, shoot):
    queue.get_by_role("button", name="Mislabeled").click()
    first = album.mislabeled(200, None)[0]
    expect(queue.locator("figure")).to_contain_text(f"{first['label']} → {first['suggested_label']}?")
    expect(queue.locator(".near button.tile")).to_have_count(8)
    shoot("findings-mislabeled")
    visit.page.keyboard.press("a")
    expect(queue.locator(".position")).to_contain_text("2 of ")
    assert album.tags["mislabeled"] == {first["sample_id"]}


def test_a_cluster_becomes_a_filter_and_its_middle_a_picture_on_the_map(visit, queue, album, shoot):
    queue.get_by_role("button", name="Clusters").click()
    clusters = album.clustered()
    expect(queue.locator(".position")).to_have_text(f"1 of {len(clusters)}")
    expect(queue.locator(".near button.tile")).to_have_count(8)
    shoot("findings-clusters")
    visit.page.keyboard.press("j")
    visit.page.keyboard.press("a")
    expect(visit.page.locator(".chip")).to_have_text(["cluster = '1'×"])
    expect(visit.page.locator("#map-count")).to_have_text(f"{clusters[1]['size']} of 600 points")
    assert visit.evaluate("constellate.stage.pictures._landmarks.length") == len(clusters)


def test_a_second_cluster_takes_the_place_of_the_first_in_the_filter(visit, queue, album):
    queue.get_by_role("button", name="Clusters").click()
    clusters = album.clustered()
    landmarks = "constellate.stage.pictures._landmarks.length"
    for number in (0, 1):
        expect(queue.locator(".position")).to_have_text(f"{number + 1} of {len(clusters)}")
        visit.page.keyboard.press("a")
        expect(visit.page.locator(".chip")).to_have_text([f"cluster = '{number}'×"])
        expect(visit.page.locator("#map-count")).to_have_text(f"{clusters[number]['size']} of 600 points")
        visit.evaluate("constellate._refresh()")
        assert visit.evaluate(landmarks) == len(clusters)
        visit.button("Findings").click()
        visit.page.keyboard.press("j")


def test_the_filter_holds_for_findings_and_the_plan_names_what_they_show(visit, queue, album):
    box = visit.page.get_by_role("combobox", name="Filter")
    box.fill("width > 500")
    box.press("Enter")
    groups = expected_groups(album, "width > 500")
    assert groups != expected_groups(album)
    expect(queue.locator(".position")).to_have_text(f"1 of {len(groups)}")
    with visit.page.expect_download() as download:
        visit.button("Save the plan (CSV)").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"), newline="")))
    assert [(row["sample_id"], row["action"]) for row in rows] == [
        (item["sample_id"], item["action"]) for group in groups for item in group
    ]


def test_findings_of_a_large_set_make_its_graph_first(visit, album, forgiven):
    forgiven.append("Failed to load resource")
    album.needs_graph = True
    visit.button("Findings").click()
    queue = visit.page.locator("#findings")
    expect(queue).to_contain_text("Finding the neighbours of every image")
    expect(queue.locator(".position")).to_have_text(f"1 of {len(expected_groups(album))}")


@pytest.mark.parametrize(
    ("kind", "words"), [("graph", "Finding the neighbours"), ("reduce", "Waiting for another job")]
)
def test_findings_that_need_the_graph_wait_for_the_job_that_runs(visit, service, album, forgiven, kind, words):
    forgiven.append("Failed to load resource")
    album.needs_graph = True
    service.job_s = 600.0
    running = service.start_job(album.id, kind)
    visit.button("Findings").click()
    queue = visit.page.locator("#findings")
    expect(queue).to_contain_text(words)
    service.end_jobs()
    expect(queue.locator(".position")).to_have_text(f"1 of {len(expected_groups(album))}")
    assert [job["id"] for job in service.jobs if job["kind"] == kind] == [running["id"]]
    assert album.needs_graph is False


def test_a_queue_without_findings_offers_nothing_to_do(visit, queue):
    queue.get_by_label("At least this similar").fill("1")
    queue.get_by_label("At least this similar").press("Tab")
    expect(queue).to_contain_text("No two images are that much alike.")
    expect(queue.get_by_role("button", name="Tag", exact=True)).to_be_hidden()
    expect(visit.button("Save the plan (CSV)")).to_be_hidden()


def test_a_question_that_is_refused_says_why(visit, queue, forgiven):
    forgiven.append("Failed to load resource")
    visit.evaluate("constellate.findings._options.column = 'no such'")
    queue.get_by_role("button", name="Leaks").click()
    expect(queue).to_contain_text("There is no column no such.")
    queue.get_by_label("Across").select_option("split")


def test_what_was_decided_outlives_another_queue_and_a_job_that_is_cancelled(visit, queue, service, album):
    visit.page.keyboard.press("s")
    expect(queue.locator("progress")).to_have_js_property("value", 1)
    service.job_s = 600.0
    with visit.page.expect_response("**/generate"):
        visit.work.get_by_role("button", name="Recompute").click()
    visit.work.get_by_role("button", name="Cancel").click()
    expect(visit.work).to_contain_text("Cancelled")
    queue.get_by_role("button", name="Mislabeled").click()
    expect(queue.locator(".position")).to_have_text(f"1 of {len(album.mislabeled(200, ''))}")
    queue.get_by_role("button", name="Duplicates").click()
    expect(queue.locator(".position")).to_have_text(f"2 of {len(expected_groups(album))}")
    expect(queue.locator("progress")).to_have_js_property("value", 1)


def test_a_key_pressed_twice_decides_once(visit, queue, service, album):
    visit.evaluate("constellate.findings.key('a'), constellate.findings.key('a')")
    expect(queue.locator(".position")).to_have_text(f"2 of {len(expected_groups(album))}")
    assert service.requests.count(("POST", f"/datasets/{album.id}/tags/drop")) == 1


def test_an_image_opened_from_a_leak_has_its_own_label(visit, queue, album):
    queue.get_by_role("button", name="Leaks").click()
    item = next(item for item in album.leaks("split", 0.95, None))
    queue.locator("figure button.large").first.click()
    label = album.labels[album.rows[item["sample_id"]]] or "none"
    expect(visit.panel.locator("dd").nth(1)).to_have_text(label)


def test_an_address_keeps_what_a_queue_was_asked_for(visit, queue, album, page):
    queue.get_by_label("Keep").select_option("oldest")
    threshold = queue.get_by_label("At least this similar")
    threshold.fill("0.9")
    threshold.press("Tab")
    groups = album.kept(0.9, "oldest", None)
    expect(queue.locator(".position")).to_have_text(f"1 of {len(groups)}")
    threshold.fill("")
    threshold.press("Tab")
    assert "threshold=0.9" in page.url
    page.goto(page.url)
    expect(queue.locator(".position")).to_have_text(f"1 of {len(groups)}")
    expect(threshold).to_have_value("0.9")
    expect(queue.get_by_label("Keep")).to_have_value("oldest")
    visit.button("Map").click()
    assert "threshold" not in page.url


def test_a_column_that_a_tag_has_made_can_be_chosen_at_once(visit, queue, album):
    queue.get_by_role("button", name="Leaks").click()
    expect(queue.locator(".position")).to_contain_text("1 of ")
    album.clusters = album.labels
    visit.page.keyboard.press("a")
    queue.get_by_label("Across").select_option("cluster")


def test_the_plan_of_each_queue_is_a_table(visit, queue, album):
    lengths = {
        "Leaks": len(album.leaks("split", 0.95, None)),
        "Mislabeled": len(album.mislabeled(200, None)),
        "Clusters": len(album.clustered()),
    }
    assert len({*lengths.values()}) == 3, "the queues cannot be told apart"
    for name, length in lengths.items():
        queue.get_by_role("button", name=name).click()
        expect(queue.locator(".position")).to_have_text(f"1 of {length}")
        with visit.page.expect_download() as download:
            visit.button("Save the plan (CSV)").click()
        text = download.value.path().read_text(encoding="utf-8")
        assert len(list(csv.DictReader(io.StringIO(text, newline="")))) == length
        expect(queue.get_by_label("Tag", exact=True)).to_have_count(0 if name == "Clusters" else 1)


def test_clusters_are_named_by_phrases_that_the_address_keeps(visit, queue, album, page, forgiven):
    forgiven.append("Failed to load resource")
    queue.get_by_role("button", name="Clusters").click()
    expect(queue.locator(".position")).to_contain_text("1 of ")
    queue.get_by_label("Name by").fill("a kelp, a fern ,")
    queue.get_by_label("Name by").press("Enter")
    expect(queue).to_contain_text("takes no text")
    album.takes_text = True
    page.reload()
    first = album.clustered()[0]
    expect(queue.get_by_role("heading").first).to_have_text(
        f"a kelp (75 % of them fit it best) · label {first['label']} (100 %) · {first['size']} images"
    )
    expect(queue.get_by_label("Name by")).to_have_value("a kelp, a fern ,")


def named_by(visit, queue):
    """The field for the names of clusters, once there are clusters."""
    queue.get_by_role("button", name="Clusters").click()
    expect(queue.locator(".position")).to_contain_text("1 of ")
    return queue.get_by_label("Name by")


def test_what_is_being_written_outlives_new_columns(visit, queue, service, album):
    field = named_by(visit, queue)
    field.press_sequentially("a ke")
    visit.evaluate("constellate.lens.readColumns()")
    visit.page.keyboard.type("lp, a fern")
    expect(field).to_have_value("a kelp, a fern")
    assert ("POST", f"/datasets/{album.id}/clusters") not in service.requests


def test_a_field_keeps_the_focus_when_enter_asks_anew(visit, queue, service, album):
    album.takes_text = True
    field = named_by(visit, queue)
    field.fill("a kelp")
    field.press("Enter")
    expect(queue.get_by_role("heading").first).to_contain_text("a kelp (75 %")
    visit.page.keyboard.type(", a")
    expect(field).to_have_value("a kelp, a")
    assert ("POST", f"/datasets/{album.id}/clusters") not in service.requests


def test_a_button_that_takes_the_focus_from_an_edited_field_still_acts(visit, queue, album):
    first = expected_groups(album)[0]
    threshold = queue.get_by_label("At least this similar")
    threshold.fill("0.9")
    with visit.page.expect_response("**/tags/drop"):
        queue.get_by_role("button", name="Tag “drop”").click()
    assert album.tags["drop"] == {item["sample_id"] for item in first[1:]}
    expect(queue.locator(".position")).to_contain_text(f" of {len(album.kept(0.9, 'largest', None))}")
    threshold.fill("0.8")
    queue.get_by_role("button", name="Leaks").click()
    expect(queue.get_by_role("button", name="Leaks")).to_have_attribute("aria-pressed", "true")
    expect(queue.locator(".position")).to_contain_text(f" of {len(album.leaks('split', 0.8, None))}")


def test_keys_are_no_commands_where_the_page_has_taken_the_field_away(visit, queue):
    dialog = visit.page.get_by_role("dialog", name="Keys")
    visit.page.keyboard.press("t")
    expect(queue.get_by_label("Tag", exact=True)).to_be_focused()
    visit.evaluate("constellate.lens.bar.add('width > 1980')")
    expect(queue.get_by_label("Tag", exact=True)).to_be_hidden()
    visit.await_true("document.activeElement === document.body")
    visit.page.keyboard.press("?")
    expect(dialog).to_have_count(0)
    visit.page.keyboard.press("Escape")
    visit.page.keyboard.press("?")
    expect(dialog).to_be_visible()


def test_what_is_tagged_can_be_left_out_again_and_comes_back_when_it_is_undone(visit, queue, album):
    shown = visit.page.locator("#map-count")
    total = len(expected_groups(album))

    def leave_out():
        queue.get_by_role("button", name="Leave out “drop”").click()

    def expect_left(position):
        left = len(album.chosen("tag <> 'drop'"))
        expect(shown).to_have_text(f"{left} of 600 points")
        expect(queue.locator(".position")).to_have_text(position)

    visit.page.keyboard.press("a")
    expect(queue.locator(".position")).to_have_text(f"2 of {total}")
    leave_out()
    n_left = len(expected_groups(album, "tag <> 'drop'"))
    assert n_left == total - 1
    expect_left(f"1 of {n_left}")
    visit.page.keyboard.press("a")
    expect_left(f"2 of {n_left}")
    leave_out()
    assert len(expected_groups(album, "tag <> 'drop'")) == n_left - 1
    expect_left(f"1 of {n_left - 1}")
    expect(queue.locator("progress")).to_have_js_property("value", 0)
    visit.page.keyboard.press("z")
    expect_left(f"1 of {n_left}")
    visit.page.keyboard.press("z")
    expect_left(f"1 of {total}")
    assert album.tags["drop"] == set()
