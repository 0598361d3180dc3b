"""Modules of the page without their elements: what they compute."""

import pytest

from tests.browser.tab import unexpected, watch_console


@pytest.fixture(scope="module")
def run(browser, stand_in):
    """Run JavaScript with the exports of one of the page's modules as `m`; one page for all: modules keep nothing."""
    _, server = stand_in
    page = browser.new_page()
    complaints = watch_console(page)
    page.goto(server.url)

    def run(module, body, argument=None):
        script = f"async (argument) => {{ const m = await import('{server.url}/static/{module}'); {body} }}"
        return page.evaluate(script, argument)

    yield run
    page.close()
    assert unexpected(complaints) == []


PARSE = """
    const chunks = argument.map((text) => new TextEncoder().encode(text));
    const body = new ReadableStream({ start(c) { chunks.forEach((chunk) => c.enqueue(chunk)); c.close(); } });
    const events = [];
    for await (const event of m.parseEvents(body)) events.push(event);
    return events;
"""


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (["id: j:1\nevent: progress\ndata: {}\n\n"], [("j:1", "progress", "{}")]),
        (["id: j:1\r\ndata: a\r\n\r\ndata: b\r\n\r\n"], [("j:1", "message", "a"), ("j:1", "message", "b")]),
        (["data: a\r", "\n\r", "\ndata: b\n", "\n"], [("", "message", "a"), ("", "message", "b")]),
        (["data: one\ndata: two\n\n"], [("", "message", "one\ntwo")]),
        (["data:x\nretry: 5\nodd\n\n", "data: unfinished"], [("", "message", "x")]),
        (["id: 1\n\n", "data: später\n\n"], [("1", "message", "später")]),
    ],
    ids=["lf", "crlf", "split-crlf", "two-data-lines", "unknown-fields", "id-alone"],
)
def test_server_sent_events_are_read_as_the_standard_says(run, chunks, expected):
    events = run("events.js", PARSE, chunks)
    assert [(event["id"], event["event"], event["data"]) for event in events] == expected


def test_a_comment_is_a_sign_of_life(run):
    assert run("events.js", PARSE, [": ping\n\n"]) == [None]


def test_a_csv_quotes_what_needs_it_and_leaves_the_rest_exact(run):
    items = [
        {"sample_id": 'a,"b"', "file_name": "line\nbreak", "label": None, "score": 0.5},
        {"sample_id": "=1+1", "file_name": "plain", "label": "x", "score": 1},
    ]
    text = run("clipboard.js", "return m.csv(argument);", items)
    rows = ["sample_id,file_name,label,score", '"a,""b""","line\nbreak",,0.5', "=1+1,plain,x,1", ""]
    assert text == "\r\n".join(rows)


@pytest.mark.parametrize(
    ("place", "inside"),
    [((1, 1), True), ((3, 3), False), ((2.5, 0.5), True), ((-1, 1), False)],
    ids=["in-the-arm", "in-the-notch", "in-the-foot", "outside"],
)
def test_a_lasso_may_be_concave(run, place, inside):
    corners = [[0, 0], [4, 0], [4, 1], [2, 2], [2, 4], [0, 4]]
    assert run("lasso.js", "return m.isInside(...argument[0], argument[1]);", [place, corners]) is inside


def test_the_camera_takes_pixels_to_the_map_and_back(run):
    body = """
        const camera = Object.assign(new m.Camera(), { width: 640, height: 480 });
        camera.zoomAt(3, 100, 50);
        camera.panBy(-20, 35);
        return camera.toScreen(...camera.toMap(123, 45));
    """
    assert run("camera.js", body) == pytest.approx([123, 45])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "a moment"), (42, "42 s"), (600, "10 min"), (9000, "2.5 h")],
    ids=["now", "s", "min", "h"],
)
def test_durations_are_told_in_the_unit_that_fits(run, seconds, words):
    assert run("words.js", "return m.duration(argument);", seconds) == words


PLACED = """
    let state = 1;
    const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
    const meadow = (n, half) => Float32Array.from({ length: 2 * n }, () => half * (2 * random() - 1));
    const rows = (xy) => Uint32Array.from({ length: xy.length / 2 }, (_, row) => row);
    const place = (xy, landmarks = []) => new m.Placing(xy, rows(xy), landmarks);
    const overlaps = (xy, chosen, side) => chosen.some((a, i) => chosen.some((b, j) => i < j
        && Math.abs(xy[2 * a] - xy[2 * b]) < side && Math.abs(xy[2 * a + 1] - xy[2 * b + 1]) < side));
"""


@pytest.mark.parametrize("side", [0.002, 0.02, 0.2], ids=["near", "between", "far"])
def test_pictures_never_overlap_and_stay_while_the_map_moves(run, side):
    body = """
        const xy = meadow(20_000, 1);
        const placing = place(xy);
        const first = placing.within(argument, [-0.3, -0.3, 0.1, 0.1]);
        const around = placing.within(argument, [-0.4, -0.4, 0.2, 0.2]);
        const stay = first.every((row) => around.includes(row));
        return { first: first.length, stay, overlap: overlaps(xy, around, argument) };
    """
    found = run("placing.js", PLACED + body, side)
    assert found["first"] >= 4
    assert (found["stay"], found["overlap"]) == (True, False)


def test_every_point_with_room_for_its_picture_has_one(run):
    body = "const xy = meadow(20, 1); return place(xy).within(2e-3, [-1, -1, 1, 1]).sort((a, b) => a - b);"
    assert run("placing.js", PLACED + body) == list(range(20))


def test_landmarks_are_shown_first_where_points_are_crowded(run):
    body = "const xy = meadow(5000, 1); return place(xy, [7, 4321]).within(0.2, [-1, -1, 1, 1]).slice(0, 2);"
    assert run("placing.js", PLACED + body) == [7, 4321]


def test_the_time_to_choose_pictures_follows_the_view_and_not_the_number_of_points(run):
    body = """
        const viewed = (n) => {
            const xy = meadow(n, 1);
            const placing = place(xy);
            const side = 1 / Math.sqrt(n); // as many points in view, however many there are
            placing.within(side, [-side, -side, side, side]);
            const begin = performance.now();
            for (let i = 0; i < 2000; i++) {
                const x = ((i % 30) - 15) * side;
                placing.within(side, [x, -10 * side, x + 20 * side, 10 * side]);
            }
            return performance.now() - begin;
        };
        const least = (n) => Math.min(...[1, 2, 3].map(() => viewed(n)));
        return least(400_000) / least(4000);
    """
    assert run("placing.js", PLACED + body) < 10
