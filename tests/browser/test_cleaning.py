"""A COCO set is cleaned on the page, as somebody new to it would: leaks, twins, wrong labels, and what is left as COCO.

The page, the API and the store are real, and the set has planted faults; only the model is a simple one, which knows
the vector of each picture.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from serve_app.config import Settings
from tests.browser.map_page import MapPage
from tests.browser.real_api import serving
from tests.fakes import FakeEmbedder, FakeModel

DIMENSION = 64
CATEGORIES = ("bird", "cat", "dog")
N_EACH = 12
EXACT_LEAKS = {"val/leak-0.png": "train/bird-00.png", "val/leak-1.png": "train/cat-01.png"}
NEAR_TWINS = {"train/twin-0.png": "train/dog-00.png", "train/twin-1.png": "train/dog-01.png"}
FLIPPED = {"train/cat-05.png": "dog", "train/bird-06.png": "cat"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder with `annotations.json`, images of three categories in train and val, and the faults above."""
    folder = tmp_path_factory.mktemp("cleaning") / "zoo"
    random = np.random.default_rng(0)
    vectors, images, annotations = {}, [], []

    def add(name, data, category):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        width, height = Image.open(path).size
        images.append({"id": len(images) + 1, "file_name": name, "width": width, "height": height})
        box = {"bbox": [8, 6, 20.5, 24], "area": 492.0, "iscrowd": 0, "segmentation": [[8, 6, 28.5, 6, 28.5, 30]]}
        ids = {"id": len(annotations) + 100, "image_id": len(images), "category_id": CATEGORIES.index(category) + 1}
        annotations.append({**ids, **box})

    drawn = {}
    for number, category in enumerate(CATEGORIES):
        for n in range(N_EACH):
            name = f"{'val' if n >= 9 else 'train'}/{category}-{n:02}.png"
            drawn[name] = draw(tmp_path_factory, number, n)
            vectors[drawn[name]] = np.eye(3, DIMENSION)[number] + 0.05 * random.standard_normal(DIMENSION)
            add(name, drawn[name], FLIPPED.get(name, category))
    for name, twin in EXACT_LEAKS.items():
        add(name, drawn[twin], category_of(twin))
    for n, (name, twin) in enumerate(NEAR_TWINS.items()):
        data = draw(tmp_path_factory, 2, n, side=48)  # smaller than the original, so that it is the one to drop
        vectors[data] = vectors[drawn[twin]] + 0.001
        add(name, data, category_of(twin))
    categories = [{"id": n, "name": name} for n, name in enumerate(CATEGORIES, start=1)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / "annotations.json").write_text(text)
    return SimpleNamespace(folder=folder, vectors=vectors, coco=json.loads(text))


def category_of(name):
    return name.split("/")[1].split("-")[0]


def draw(tmp_path_factory, number, n, side=64):
    """The bytes of a picture: the shape of a category, a little different for each image."""
    image = Image.new("RGB", (side, side), (225 - 6 * n, 214, 190 + 5 * n))
    colour = ((40, 90, 170), (180, 90, 40), (60, 130, 70))[number]
    ImageDraw.Draw(image).regular_polygon(
        (side / 2, side / 2, side / 3), (3, 4, 8)[number], rotation=7 * n, fill=colour
    )
    path = tmp_path_factory.getbasetemp() / "drawn.png"
    image.save(path)
    return path.read_bytes()


@pytest.fixture
def server(planted, tmp_path):
    model = FakeModel(dimension=DIMENSION)
    model.vector = lambda data: planted.vectors[data].astype(np.float32)
    settings = Settings(data_dir=tmp_path / "state", dataset_roots=(planted.folder.parent,))
    with serving(settings, FakeEmbedder(model)) as server:
        yield server


def work_through(page, queue, title, wanted):
    """Go through a queue by key: accept the findings that `wanted` says yes to, and skip the others."""
    queue.get_by_role("button", name=title, exact=True).click()
    expect(queue.locator(".position")).to_contain_text("1 of ")
    n = int(queue.locator(".position").inner_text().split()[-1])
    for at in range(n):
        expect(queue.locator(".position")).to_have_text(f"{at + 1} of {n}")
        accepts = wanted(queue.locator("figure button.large").evaluate_all("all => all.map((one) => one.title)"))
        page.keyboard.press("a" if accepts else "s")
        expect(queue.locator("progress")).to_have_js_property("value", at + 1)
    return n


@pytest.mark.every
def test_a_coco_set_with_splits_is_cleaned_and_handed_over_without_a_manual(page, base_url, planted, shoot):
    visit = MapPage(page, base_url)
    visit.open()

    visit.button("Add a folder…").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Choose…").click()
    dialog.get_by_role("button", name=planted.folder.parent.name).click()
    dialog.get_by_role("button", name="zoo").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("zoo")
    shoot("cleaning-1-register")
    dialog.get_by_role("button", name="Add", exact=True).click()
    page.locator("#map-message").get_by_role("button", name="Compute vectors").click()
    n_images = len(planted.coco["images"])
    expect(page.locator("#map-count")).to_have_text(f"{n_images} points")
    expect(page.locator("#legend .entry")).to_have_count(len(CATEGORIES))
    expect(page.get_by_label("Colour by").locator("option", has_text="format")).to_have_count(1)  # the job has read it

    visit.button("Findings").click()
    queue = page.locator("#findings")
    assert work_through(page, queue, "Leaks", lambda names: True) == len(EXACT_LEAKS)
    shoot("cleaning-2-leaks")
    queue.get_by_role("button", name="Leave out “leak”").click()
    expect(page.locator(".chip")).to_have_text(["tag <> 'leak'×"])

    twins = {frozenset(pair) for pair in NEAR_TWINS.items()}
    assert work_through(page, queue, "Duplicates", lambda names: frozenset(names) in twins) >= len(NEAR_TWINS)
    shoot("cleaning-3-duplicates")
    queue.get_by_role("button", name="Leave out “drop”").click()

    work_through(page, queue, "Mislabeled", lambda names: names[0] in FLIPPED)
    shoot("cleaning-4-mislabeled")
    queue.get_by_role("button", name="Leave out “mislabeled”").click()
    expect(page.locator(".chip")).to_have_count(3)

    visit.button("Map").click()
    left = n_images - len(EXACT_LEAKS) - len(NEAR_TWINS) - len(FLIPPED)
    expect(page.locator("#map-count")).to_have_text(f"{left} of {n_images} points")
    page.get_by_label("Format of the file").select_option("coco")
    with page.expect_download() as download:
        visit.button("Export").click()
    assert download.value.suggested_filename == "zoo.json"
    found = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert_clean(found, planted.coco)
    shoot("cleaning-5-what-is-left")

    visit.page.get_by_label("Colour by").select_option("split")
    expect(page.locator("#legend .entry")).to_have_count(2)
    colleague = page.context.new_page()
    colleague.goto(page.url)
    expect(colleague.locator("#map-count")).to_have_text(f"{left} of {n_images} points")
    expect(colleague.locator(".chip")).to_have_text(page.locator(".chip").all_text_contents())
    expect(colleague.get_by_label("Colour by")).to_have_value("split")
    expect(colleague.locator("#legend .entry")).to_have_count(2)
    colleague.close()


def assert_clean(found, given):
    """What is left has one of each pair and no fault, and its entries are those of the file."""
    names = [image["file_name"] for image in found["images"]]
    for one, other in EXACT_LEAKS.items():
        assert (one in names) != (other in names)
    assert not {*NEAR_TWINS, *FLIPPED} & {*names}
    ids = {image["id"] for image in found["images"]}
    assert found["images"] == [image for image in given["images"] if image["id"] in ids]
    assert found["annotations"] == [mark for mark in given["annotations"] if mark["image_id"] in ids]
    assert found["categories"] == given["categories"]
