/**
 * The middle of the page: map or list, the tools of the map, its tooltip and its messages.
 * @module
 */

import { byId, el, fill } from "./dom.js";
import { Gestures } from "./gestures.js";
import { thumbnail } from "./images.js";
import { SampleList } from "./list.js";
import { ScatterMap } from "./map.js";
import { Pictures } from "./pictures.js";
import { count } from "./words.js";

/** @type {View[]} */
const VIEWS = ["map", "list", "findings"];
const ZOOM_STEP = 1.5;
const TIP_GAP_PX = 14;

const NO_MAP =
  "This browser cannot draw the map (it needs WebGL 2). The list below, search, near-duplicates and outliers work without it.";
const LOST = "The graphics driver has stopped the map; it comes back by itself where the driver allows it. Everything else works on.";

/** @typedef {import("./api.js").Item} Item */
/** @typedef {import("./points.js").Points} Points */
/** @typedef {import("./colouring.js").Colouring} Colouring */
/** @typedef {import("./lasso.js").Place} Place */
/** @typedef {"map" | "list" | "findings"} View */
/** @typedef {{title: string, text: string, action?: string, onAction?: () => void}} Message */

export class Stage {
  /**
   * @param {{onOpen: (item: Item) => void, onLasso: (items: Item[], corners: Place[]) => void, onView: (view: View) => void}} events
   *   `onView` after another view is shown
   */
  constructor(events) {
    this._events = events;
    this._datasetId = "";
    this._where = "";
    /** @type {Uint8Array | null} */
    this._passing = null;
    /** @type {number} the row of the open image */
    this._active = -1;
    this._hovered = -1;
    /** @type {Item[]} whose pictures are shown first, the most important first */
    this._landmarks = [];
    this._tip = byId("map-tip");
    this._list = new SampleList(byId("list"), { onOpen: events.onOpen, onHover: () => {} });
    /** @type {ScatterMap | null} */
    this.map = this._makeMap();
    /** @type {Pictures | null} */
    this.pictures = this.map && new Pictures(this.map);
    if (this.map) this._connect(this.map);
    for (const view of VIEWS) byId(`show-${view}`).addEventListener("click", () => this.show(view));
    if (!this.map) this._withoutMap(NO_MAP);
  }

  /** @returns {Points | null} */
  get points() {
    return this.map?.points ?? null;
  }

  /** @returns {ScatterMap | null} */
  _makeMap() {
    try {
      return new ScatterMap(/** @type {HTMLCanvasElement} */ (byId("map-canvas")), {
        onLost: () => this._withoutMap(LOST),
        onRestored: () => this._withMap(),
        onView: () => this._hideTip(),
        onDrawn: () => this.pictures?.draw(),
        onShown: () => this.pictures?.choose(),
      });
    } catch {
      return null;
    }
  }

  /** @param {ScatterMap} map */
  _connect(map) {
    const [pan, lasso] = [byId("tool-pan"), byId("tool-lasso")];
    const at = (/** @type {number} */ px, /** @type {number} */ py) => this.pictures?.rowAt(px, py) ?? -1;
    const gestures = new Gestures(map, byId("map-lasso"), at, {
      onHover: (row) => this.hover(row, true),
      onPick: (row) => {
        this._hideTip();
        if (map.points) this._events.onOpen(map.points.item(row));
      },
      onLasso: (rows, corners) => {
        const points = /** @type {Points} */ (map.points);
        this._events.onLasso(rows.map((row) => points.item(row)), corners.map(([x, y]) => points.toService(x, y)));
      },
      onTool: (tool) => {
        pan.setAttribute("aria-pressed", String(tool === "pan"));
        lasso.setAttribute("aria-pressed", String(tool === "lasso"));
      },
    });
    pan.addEventListener("click", () => gestures.use("pan"));
    lasso.addEventListener("click", () => gestures.use("lasso"));
    byId("zoom-in").addEventListener("click", () => gestures.zoom(ZOOM_STEP));
    byId("zoom-out").addEventListener("click", () => gestures.zoom(1 / ZOOM_STEP));
    byId("zoom-fit").addEventListener("click", () => gestures.fit());
  }

  /**
   * @param {string} datasetId empty for none
   * @param {Points | null} points
   * @param {Colouring | null} colouring of the points
   * @param {string} where the filter of the list, empty for none
   */
  load(datasetId, points, colouring, where) {
    if (datasetId !== this._datasetId) this.map?.camera.fit();
    this._datasetId = datasetId;
    this._where = where;
    this._passing = null;
    this._active = -1;
    this.hover(-1, false);
    this.pictures?.reset(datasetId);
    this.map?.setPoints(points, colouring);
    this.prefer(this._landmarks);
    this._count();
    if (!byId("list").hidden) this._list.show(datasetId, this._where);
  }

  /**
   * Show only some images.
   * @param {string} where the filter, empty for none
   * @param {Uint8Array | null} passing 1 for each point that passes it; null for all
   */
  filter(where, passing) {
    this._where = where;
    this._passing = passing;
    this.map?.filter(passing);
    this._count();
    if (!byId("list").hidden) this._list.show(this._datasetId, where);
  }

  _count() {
    const all = this.points?.count ?? 0;
    const passing = this._passing?.reduce((sum, one) => sum + one, 0);
    const says = !all ? "" : passing === undefined ? `${count(all)} points` : `${count(passing)} of ${count(all)} points`;
    byId("map-count").textContent = byId("map-count").title = says;
  }

  /** Show the images: on the map, or as a list where there can be no map. */
  showImages() {
    this.show(/** @type {HTMLButtonElement} */ (byId("show-map")).disabled ? "list" : "map");
  }

  /** @param {View} view */
  show(view) {
    for (const name of VIEWS) {
      byId(name).hidden = name !== view;
      byId(`show-${name}`).setAttribute("aria-pressed", String(name === view));
    }
    byId("map-tools").classList.toggle("away", view !== "map");
    if (view === "list") this._list.show(this._datasetId, this._where);
    this._events.onView(view);
  }

  /** @param {Message | null} message over the map */
  say(message) {
    const box = byId("map-message");
    box.hidden = !message;
    if (!message) return;
    const { title, text, action, onAction } = message;
    fill(
      box,
      el("h2", {}, title),
      el("p", {}, text),
      action && el("button", { class: "button main", type: "button", onclick: onAction }, action),
    );
  }

  /** @param {import("./panel.js").Highlight} highlight */
  highlight({ mark, active }) {
    const rows = (/** @type {Item} */ { sample_id }) => this.points?.rowOf(sample_id) ?? -1;
    this._active = active ? rows(active) : -1;
    this.map?.mark(mark && mark.map(rows).filter((row) => row >= 0));
    this.map?.focus([this._active, this._hovered]);
  }

  /** @param {Item[]} items whose pictures are shown first, also on later maps, the most important first */
  prefer(items) {
    this._landmarks = items;
    this.pictures?.prefer(items.map(({ sample_id }) => this.points?.rowOf(sample_id) ?? -1).filter((row) => row >= 0));
  }

  /** @param {Item | null} item pointed at outside the map */
  pointOut(item) {
    this.hover(item ? (this.points?.rowOf(item.sample_id) ?? -1) : -1, false);
  }

  /**
   * @param {number} row -1 for none
   * @param {boolean} withTip
   */
  hover(row, withTip) {
    if (row === this._hovered) return;
    this._hovered = row;
    this.map?.focus([this._active, row]);
    this.map?.canvas.classList.toggle("pointing", row >= 0);
    if (row >= 0 && withTip) this._showTip(row);
    else this._hideTip();
  }

  /** @param {number} row */
  _showTip(row) {
    const map = /** @type {ScatterMap} */ (this.map);
    const item = /** @type {Points} */ (map.points).item(row);
    const label = item.label !== null && el("span", { class: "note one-line" }, item.label);
    fill(this._tip, el("span", { class: "frame" }, thumbnail(this._datasetId, item, 160)), el("span", { class: "breaks" }, item.file_name), label);
    this._tip.hidden = false;
    const [x, y] = map.placeOf(row);
    const { offsetWidth, offsetHeight } = this._tip;
    const left = x + TIP_GAP_PX + offsetWidth < map.camera.width ? x + TIP_GAP_PX : x - TIP_GAP_PX - offsetWidth;
    const top = Math.min(Math.max(8, y - offsetHeight / 2), map.camera.height - offsetHeight - 8);
    this._tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }

  _hideTip() {
    this._tip.hidden = true;
  }

  /** @param {string} reason */
  _withoutMap(reason) {
    this._list.warn(reason);
    /** @type {HTMLButtonElement} */ (byId("show-map")).disabled = true;
    if (byId("findings").hidden) this.show("list");
  }

  _withMap() {
    this._list.warn("");
    /** @type {HTMLButtonElement} */ (byId("show-map")).disabled = false;
    if (byId("findings").hidden) this.show("map");
  }
}
