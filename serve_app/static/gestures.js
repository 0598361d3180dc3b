/**
 * Mouse, touch and keys on the map.
 * @module
 */

import { Lasso, rowsInside, thinned } from "./lasso.js";

const CLICK_PX = 4;
const STEP_PX = 60;
const ZOOM_STEP = 1.5;

/** @typedef {import("./map.js").ScatterMap} ScatterMap */
/** @typedef {"pan" | "lasso"} Tool */

export class Gestures {
  /**
   * @param {ScatterMap} map
   * @param {SVGSVGElement} svg
   * @param {(px: number, py: number) => number} pictureAt the row of the picture at a pixel, -1 for none
   * @param {{onHover: (row: number) => void, onPick: (row: number) => void, onLasso: (rows: number[], corners: import("./lasso.js").Place[]) => void,
   *   onTool: (tool: Tool) => void}} events
   */
  constructor(map, svg, pictureAt, events) {
    this._map = map;
    this._pictureAt = pictureAt;
    this._lasso = new Lasso(svg);
    this._events = events;
    /** @type {Tool} */
    this.tool = "pan";
    /** @type {Map<number, PointerEvent>} */
    this._pointers = new Map();
    this._isDrawing = false;
    this._travel = 0;
    const { canvas } = map;
    canvas.addEventListener("pointerdown", (event) => this._down(event));
    canvas.addEventListener("pointermove", (event) => this._move(event));
    canvas.addEventListener("pointerup", (event) => this._up(event));
    canvas.addEventListener("pointercancel", (event) => this._up(event));
    canvas.addEventListener("pointerleave", () => events.onHover(-1));
    canvas.addEventListener("wheel", (event) => this._wheel(event), { passive: false });
    canvas.addEventListener("dblclick", (event) => this.zoom(2, event.offsetX, event.offsetY));
    canvas.addEventListener("keydown", (event) => this._key(event));
  }

  /** @param {Tool} tool */
  use(tool) {
    this.tool = tool;
    this._map.canvas.classList.toggle("drawing", tool === "lasso");
    this._events.onTool(tool);
  }

  /**
   * @param {number} factor
   * @param {number} [px]
   * @param {number} [py]
   */
  zoom(factor, px, py) {
    const { camera } = this._map;
    camera.zoomAt(factor, px ?? camera.width / 2, py ?? camera.height / 2);
    this._map.moved();
  }

  /** Show everything. */
  fit() {
    this._map.camera.fit();
    this._map.moved();
  }

  /** @param {PointerEvent} event */
  _down(event) {
    if (event.button !== 0) return;
    this._map.canvas.classList.add("pointed");
    this._map.canvas.setPointerCapture(event.pointerId);
    this._pointers.set(event.pointerId, event);
    this._travel = 0;
    this._isDrawing = this._pointers.size === 1 && (this.tool === "lasso") !== event.shiftKey;
    this._lasso.take();
    if (this._isDrawing) this._lasso.add(event.offsetX, event.offsetY);
  }

  /** @param {PointerEvent} event */
  _move(event) {
    const before = this._pointers.get(event.pointerId);
    if (!before) {
      this._events.onHover(this._rowAt(event.offsetX, event.offsetY));
      return;
    }
    const [dx, dy] = [event.offsetX - before.offsetX, event.offsetY - before.offsetY];
    this._travel += Math.hypot(dx, dy);
    if (this._pointers.size === 2) this._pinch(event);
    else if (this._isDrawing) this._lasso.add(event.offsetX, event.offsetY);
    else if (this._travel > CLICK_PX) {
      this._map.camera.panBy(dx, dy);
      this._map.moved();
    }
    this._pointers.set(event.pointerId, event);
  }

  /** @param {PointerEvent} event */
  _up(event) {
    const isOurs = this._pointers.delete(event.pointerId);
    if (!isOurs || this._pointers.size) return;
    const corners = this._lasso.take();
    const { camera } = this._map;
    if (this._travel <= CLICK_PX) {
      if (event.type === "pointerup") this._pick(event.offsetX, event.offsetY);
    } else if (this._isDrawing && this._map.points) {
      const places = thinned(corners).map(([x, y]) => camera.toMap(x, y));
      this._events.onLasso(rowsInside(this._map.points, places, (row) => this._map.isShown(row)), places);
      this.use("pan");
    }
    this._isDrawing = false;
  }

  /**
   * @param {number} px
   * @param {number} py
   * @param {number} [radiusPx]
   */
  _pick(px, py, radiusPx) {
    const row = this._rowAt(px, py, radiusPx);
    if (row >= 0) this._events.onPick(row);
  }

  /**
   * @param {number} px
   * @param {number} py
   * @param {number} [radiusPx]
   * @returns {number} what lies there: a picture lies over the points
   */
  _rowAt(px, py, radiusPx) {
    const row = this._pictureAt(px, py);
    return row >= 0 ? row : this._map.rowAt(px, py, radiusPx);
  }

  /** @param {PointerEvent} event of one of two fingers */
  _pinch(event) {
    const before = /** @type {PointerEvent} */ (this._pointers.get(event.pointerId));
    const other = [...this._pointers.values()].find(({ pointerId }) => pointerId !== event.pointerId);
    if (!other) return;
    const spread = (/** @type {PointerEvent} */ finger) =>
      Math.hypot(finger.offsetX - other.offsetX, finger.offsetY - other.offsetY) || 1;
    this.zoom(spread(event) / spread(before), (event.offsetX + other.offsetX) / 2, (event.offsetY + other.offsetY) / 2);
  }

  /** @param {WheelEvent} event */
  _wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    const speed = event.ctrlKey ? 0.01 : 0.0018; // a pinch on a touchpad arrives as a small wheel with ctrl
    this.zoom(Math.exp(-event.deltaY * lines * speed), event.offsetX, event.offsetY);
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { camera } = this._map;
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowLeft: () => this._pan(STEP_PX, 0),
      ArrowRight: () => this._pan(-STEP_PX, 0),
      ArrowUp: () => this._pan(0, STEP_PX),
      ArrowDown: () => this._pan(0, -STEP_PX),
      "+": () => this.zoom(ZOOM_STEP),
      "=": () => this.zoom(ZOOM_STEP),
      "-": () => this.zoom(1 / ZOOM_STEP),
      0: () => this.fit(),
      l: () => this.use(this.tool === "lasso" ? "pan" : "lasso"),
      Enter: () => this._pick(camera.width / 2, camera.height / 2, Math.max(camera.width, camera.height)),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    this._map.canvas.classList.remove("pointed");
    action();
  }

  /**
   * @param {number} dx
   * @param {number} dy
   */
  _pan(dx, dy) {
    this._map.camera.panBy(dx, dy);
    this._map.moved();
  }
}
