"""Made-up images for the stand-in: places, labels, names and pictures."""

import io
import math
import re
import uuid
from functools import cache

import duckdb
import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from serve_app.store.regions import inside

AWKWARD_NAMES = [
    'two words/a "quoted" name.png',
    "100% sure?.png",
    "a#b&c=d+e.png",
    "<script>alert(1)</script>.png",
    "🦊 Füchse/狐.png",
    "back\\slash 'n' %2F.png",
]
LABELS = [
    "anemone", "barn owl", "chestnut", "dahlia", "egret", "fern", "gannet", "heather", "iris", "jay", "kelp",
    "lichen", "maple", "<b>nettle</b>", "oriole", "poppy", "quince", "rook", "sorrel", "thistle", "ulmus", "vetch",
]  # fmt: skip


def stream(table):
    """A table as an Arrow IPC stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


class Album:
    """N images in clusters, one label a cluster; the first have names that are hard to carry.

    Their vectors are their places on the map: near means similar.
    """

    def __init__(self, name, n, n_labels=12, seed=0):
        random = np.random.default_rng(seed)
        self.id = uuid.uuid4().hex
        self.name = name
        self.n = n
        cluster = random.integers(0, n_labels, n)
        angles = cluster * 2.4
        centres = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.sqrt(cluster + 1)[:, None]
        self.points = centres + random.normal(scale=0.22, size=(n, 2))
        self.labels = [LABELS[c] if random.random() > 0.03 else None for c in cluster]
        self.file_names = [f"{LABELS[c].strip('</b>')}/{i:06}.jpg" for i, c in enumerate(cluster)]
        self.file_names[: len(AWKWARD_NAMES)] = AWKWARD_NAMES[:n]
        self.rows = {name: row for row, name in enumerate(self.file_names)}
        self.widths = random.integers(100, 2000, n)
        self.tags = {}
        self.clusters = None
        self.notices = []
        self.takes_text = False
        self.needs_graph = False
        self.has_vectors = False
        self.made_by = "the first job"
        self.has_map = False
        self.models = ["dinov2-base"]
        self.without_map = set()
        self.skips = []

    def dataset(self):
        """The dataset as `GET /datasets` lists it."""
        root = f"/images/{self.name}"
        return {
            "id": self.id, "name": self.name, "root": root, "format": "folder", "sample_count": self.n,
            "notices": self.notices,
        }  # fmt: skip

    def item(self, row, score=None):
        """A sample as searches answer it."""
        item = {"sample_id": self.file_names[row], "file_name": self.file_names[row], "label": self.labels[row]}
        return item if score is None else {**item, "score": score}

    def chosen(self, where):
        """The rows that a filter chooses, all without one; raises `ValueError` for what DuckDB cannot read."""
        if not where:
            return list(range(self.n))
        table = pa.table({"row": range(self.n), **self.columns()})
        where = re.sub(r"inside\(([^()]*)\)", lambda match: self._inside(match[1]), where)
        where = re.sub(r"\btag (=|<>) '([^']*)'", lambda match: self._tagged(*match.groups()), where)
        with duckdb.connect() as connection:
            connection.register("images", table)
            try:
                return [
                    row
                    for (row,) in connection.execute(f"SELECT row FROM images WHERE {where} ORDER BY row").fetchall()
                ]
            except duckdb.Error as error:
                raise ValueError(str(error)) from None

    def columns(self):
        """The columns by name."""
        return {
            "sample_id": self.file_names,
            "file_name": self.file_names,
            "label": pa.array(self.labels, pa.string()),
            "width": pa.array(self.widths, pa.float64()),
            "split": [("train", "train", "val", "test")[row % 4] for row in range(self.n)],
            **({"cluster": self.clusters} if self.clusters else {}),
            "tag": [
                ", ".join(sorted(tag for tag, ids in self.tags.items() if name in ids)) or None
                for name in self.file_names
            ],
        }

    def _tags_of(self, name):
        return ", ".join(sorted(tag for tag, ids in self.tags.items() if name in ids)) or None

    def _inside(self, numbers):
        corners = np.array([float(number) for number in numbers.split(",")]).reshape(-1, 2)
        return f"row IN ({', '.join(map(str, np.flatnonzero(inside(self.points, corners)))) or -1})"

    def _tagged(self, sign, tag):
        ids = ", ".join("'" + name.replace("'", "''") + "'" for name in self.tags.get(tag, ())) or "NULL"
        return f"coalesce({'NOT ' if sign == '<>' else ''}sample_id IN ({ids}), {sign == '<>'})"

    def near(self, place, limit, but=-1, where=None):
        """The samples nearest to a place, best first."""
        distances = np.linalg.norm(self.points - place, axis=1)
        rows = {*self.chosen(where)} - {but}
        order = [int(row) for row in np.argsort(distances, kind="stable") if int(row) in rows]
        return [self.item(row, math.exp(-float(distances[row]))) for row in order[:limit]]

    def duplicates(self, threshold):
        """Some groups of near neighbours."""
        groups = []
        for row in range(20, min(self.n, 400), 9):
            twins = [item for item in self.near(self.points[row], 3, but=row) if item["score"] >= threshold]
            groups += [[self.item(row, 1.0), *twins]] if twins else []
        return groups

    def kept(self, threshold, keep, where):
        """The same groups, each with a sample to keep and others to drop."""
        chosen = {self.file_names[row] for row in self.chosen(where)}
        groups = [[item for item in group if item["sample_id"] in chosen] for group in self.duplicates(threshold)]
        return [[_told(item, n, keep) for n, item in enumerate(group)] for group in groups if len(group) > 1]

    def leaks(self, column, threshold, where):
        """Some near neighbours with other values of a column."""
        values = self.columns()[column]
        found = []
        for row in self.chosen(where)[:200:7]:
            twin = next((item for item in self.near(self.points[row], 9, but=row) if item["score"] >= threshold), None)
            other = twin and self.rows[twin["sample_id"]]
            if twin and values[row] != values[other]:
                sides = [{**self.item(at), "value": values[at]} for at in (row, other)]
                found.append({**sides[0], "twin": sides[1], "score": twin["score"], "exact": row % 14 == 0})
        return found

    def mislabeled(self, limit, where):
        """Some samples, each with the label of another one."""
        rows = [row for row in self.chosen(where) if self.labels[row]][:limit:9]
        return [
            {
                "sample_id": self.file_names[row], "file_name": self.file_names[row], "label": self.labels[row],
                "suggested_label": LABELS[(LABELS.index(self.labels[row]) + 1) % 12], "score": 0.9,
            }
            for row in rows
        ]  # fmt: skip

    def clustered(self, where=None):
        """A cluster for each label of the chosen samples, the largest first."""
        labels = [self.labels[row] for row in self.chosen(where)]
        sizes = sorted(((labels.count(label), label) for label in {*labels} - {None}), reverse=True)
        medoids = [self.file_names[self.labels.index(label)] for _, label in sizes]
        return [
            {
                "cluster": n, "size": size, "medoid": {"sample_id": medoid, "file_name": medoid, "label": label},
                "name": None, "name_share": None, "label": label, "share": 1.0,
            }
            for n, ((size, label), medoid) in enumerate(zip(sizes, medoids, strict=True))
        ]  # fmt: skip

    def put_clusters(self, where=None):
        """Make the column `cluster` anew, for the chosen samples alone."""
        numbers = {one["label"]: str(one["cluster"]) for one in self.clustered(where)}
        chosen = {*self.chosen(where)}
        values = [numbers.get(label) if row in chosen else None for row, label in enumerate(self.labels)]
        self.clusters = pa.array(values, pa.string())

    def outliers(self, limit):
        """The samples farthest from the middle."""
        distances = np.linalg.norm(self.points - self.points.mean(axis=0), axis=1)
        return [self.item(int(row), 0.1 + i / 1000) for i, row in enumerate(np.argsort(-distances)[:limit])]

    def arrow(self, where=None):
        """The map as an Arrow stream, empty before there is one."""
        table = pa.table(
            {
                "sample_id": self.file_names,
                "x": self.points[:, 0],
                "y": self.points[:, 1],
                "file_name": self.file_names,
                "label": pa.array(self.labels, pa.string()),
            }
        )
        return stream(table.take(self.chosen(where)) if self.has_map else table.slice(0, 0))

    def picture(self, row, size_px):
        """A JPEG whose colours follow the label, a little different for each image."""
        return _picture(self.labels[row], row, size_px)


@cache
def _picture(label, row, size_px):
    random = np.random.default_rng(row)
    hue = (LABELS.index(label) if label else 23) * 37 % 256
    image = Image.new("HSV", (size_px, size_px * 3 // 4), (hue, 90, 215))
    draw = ImageDraw.Draw(image)
    for _ in range(7):
        x, y, r = random.uniform(0, size_px, 3) * [1, 0.75, 0.25]
        shift, saturation, value = random.integers([-14, 70, 90], [14, 210, 245]).tolist()
        draw.ellipse((x - r, y - r, x + r, y + r), fill=((hue + shift) % 256, saturation, value))
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=85)
    return out.getvalue()


def _told(item, n, keep):
    action, reason = ("drop", "like the first") if n else ("keep", f"the {keep}")
    return {**item, "action": action, "reason": reason}
