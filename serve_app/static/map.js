/**
 * The scatter plot: what is drawn and how, which points are under a place, and what the view shows.
 * @module
 */

import { Camera } from "./camera.js";
import { ground, ink, rgb } from "./palette.js";
import { PointRenderer } from "./renderer.js";

const MAX_PIXEL_RATIO = 2;
const HOVER_PX = 9;
const DIMMED = 0.2;
const REST_AFTER_MS = 140;
/** A frame longer than this while moving means that this machine draws too many points. */
const SLOW_FRAME_MS = 22;
const FAST_FRAME_MS = 18;
const FEWEST = 5000;
/** Up to this many marked points are drawn larger than the others. */
const FEW = 2000;
const REFERENCE_PX = 700;

/** @typedef {import("./points.js").Points} Points */
/** @typedef {import("./colouring.js").Colouring} Colouring */

export class ScatterMap {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {{onLost: () => void, onRestored: () => void, onView: () => void, onDrawn: () => void, onShown: () => void}} events
   *   `onDrawn` after each frame, `onShown` when other points are shown
   * @throws {Error} when the browser has no WebGL 2
   */
  constructor(canvas, events) {
    this.canvas = canvas;
    this.camera = new Camera();
    /** @type {Points | null} */
    this.points = null;
    /** @type {Colouring | null} */
    this.colouring = null;
    /** @type {Uint8Array | null} 1 for each point that the filter lets through; null for no filter */
    this._passing = null;
    this._renderer = new PointRenderer(canvas);
    this._events = events;
    this._order = shuffled(0);
    /** @type {Set<number>} */
    this._hidden = new Set();
    /** @type {string[]} */
    this._palette = [];
    /** @type {number[] | null} */
    this._marked = null;
    /** @type {Set<number> | null} the same */
    this._bright = null;
    /** @type {number | null} */
    this._emphasised = null;
    /** @type {number[]} */
    this._focus = [];
    this._frame = 0;
    this._share = 1;
    this._isMoving = false;
    this._wasMoving = false;
    this._drawnAt = 0;
    this._frameMs = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this._rest = undefined;
    this._isNew = false;
    /** Frames so far, and the share of the points in the last one. */
    this.drawn = { frames: 0, share: 1 };
    new ResizeObserver(() => this._resize()).observe(canvas);
    canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      events.onLost();
    });
    canvas.addEventListener("webglcontextrestored", () => {
      this._renderer = new PointRenderer(canvas);
      this._load();
      events.onRestored();
    });
    this.recolour();
  }

  /**
   * The view and what is hidden stay; a filter of the points before is gone.
   * @param {Points | null} points
   * @param {Colouring | null} colouring of the same points
   */
  setPoints(points, colouring) {
    this.points = points;
    this.colouring = colouring;
    this._passing = null;
    this._marked = this._bright = null;
    this._focus = [];
    this._order = shuffled(points?.count ?? 0);
    this._load();
  }

  /** Give the graphics driver everything: it is new, or there are other points. */
  _load() {
    this._renderer.setPoints(this.points?.xy ?? new Float32Array(), this.colouring?.slots ?? new Uint8Array());
    this._renderer.setRows("focus", Uint32Array.from(this._focus));
    this._isNew = true;
    this._events.onShown();
    this.recolour();
    this._upload();
  }

  /** @param {Colouring} colouring of the present points */
  colourBy(colouring) {
    this.colouring = colouring;
    this._renderer.setSlots(colouring.slots);
    this._events.onShown();
    this.recolour();
    this._upload();
  }

  /** @param {Uint8Array | null} passing 1 for each point to show; null for all */
  filter(passing) {
    this._passing = passing;
    this._events.onShown();
    this._upload();
  }

  /** @param {Set<number>} slots classes not to draw */
  hide(slots) {
    this._hidden = slots;
    this._events.onShown();
    this._upload();
  }

  /** @param {number[] | null} rows drawn full while the others are dimmed; null for no difference */
  mark(rows) {
    this._marked = rows;
    this._bright = rows && new Set(rows);
    this._upload();
  }

  /** @param {number | null} slot a class to bring out for a moment */
  emphasise(slot) {
    this._emphasised = slot;
    this._upload();
  }

  /** @param {number[]} rows ringed and on top */
  focus(rows) {
    this._focus = rows.filter((row) => row >= 0);
    this._renderer.setRows("focus", Uint32Array.from(this._focus));
    this.invalidate();
  }

  /** Take the colours of the present theme. */
  recolour() {
    this._palette = this.colouring?.palette() ?? [];
    if (this.colouring) this._renderer.setColours(this._palette.flatMap(rgb));
    this.invalidate();
  }

  /** @param {number} row */
  isShown(row) {
    const passes = !this._passing || this._passing[row] === 1;
    return passes && !(this.colouring && this._hidden.has(this.colouring.slots[row]));
  }

  /**
   * @param {number} px
   * @param {number} py
   * @param {number} [radiusPx]
   * @returns {number} the shown point nearest to a pixel, -1 when none is near
   */
  rowAt(px, py, radiusPx = HOVER_PX) {
    if (!this.points?.index) return -1;
    const [x, y] = this.camera.toMap(px, py);
    const reach = (radiusPx + this._size() / 2) / this.camera.scale;
    return this.points.index.neighbors(x, y, 1, reach, (row) => this.isShown(row))[0] ?? -1;
  }

  /** @returns {Uint32Array} the shown points in the order in which they are drawn */
  shown() {
    return this._hidden.size || this._passing ? this._order.filter((row) => this.isShown(row)) : this._order;
  }

  /** @param {number} row */
  isDimmed(row) {
    if (this._emphasised !== null) return this.colouring?.slots[row] !== this._emphasised;
    return this._bright !== null && !this._bright.has(row);
  }

  /**
   * @param {number} row
   * @returns {string} the CSS colour of its point
   */
  colourOf(row) {
    return this._palette[this.colouring?.slots[row] ?? 0] ?? "";
  }

  /**
   * @param {number} row
   * @returns {[number, number]} its pixel
   */
  placeOf(row) {
    const { xy } = /** @type {Points} */ (this.points);
    return this.camera.toScreen(xy[2 * row], xy[2 * row + 1]);
  }

  /** Draw again after the camera was changed by a gesture. */
  moved() {
    this._isMoving = true;
    this._events.onView();
    this.invalidate();
    clearTimeout(this._rest);
    // Where a frame takes long the next movement comes late: that is no rest yet.
    this._rest = setTimeout(() => this._settle(), Math.max(REST_AFTER_MS, 3 * this._frameMs));
  }

  /** Draw all points again. */
  _settle() {
    this._isMoving = false;
    this.invalidate();
  }

  /** Draw before the next frame. */
  invalidate() {
    this._frame ||= requestAnimationFrame((now) => this._draw(now));
  }

  /** @returns {number} diameter of a point in CSS pixels: smaller for more points, larger on a larger or closer map */
  _size() {
    const { width, height, zoom } = this.camera;
    const crowd = 9 * Math.pow(Math.max(500, this.points?.count ?? 0) / 500, -0.2);
    const room = Math.sqrt(Math.max(1, Math.min(width, height) / REFERENCE_PX));
    return Math.min(16, crowd * room * Math.pow(Math.max(1, zoom), 0.35));
  }

  /** @param {number} now */
  _draw(now) {
    this._frame = 0;
    if (this._isMoving && this._wasMoving) this._adapt(now - this._drawnAt);
    this._wasMoving = this._isMoving;
    this._drawnAt = now;
    const ratio = this.canvas.width / Math.max(1, this.camera.width);
    const size_px = this._size() * ratio;
    const share = this._isMoving ? this._share : 1;
    const isDimmed = this._emphasised !== null || this._marked !== null;
    const few = this._emphasised === null && (this._marked?.length ?? Infinity) <= FEW;
    const [gap, ring] = [rgb(ground()), rgb(ink())];
    this._renderer.draw(this.camera.clip(), [
      { rows: "all", size_px, alpha: isDimmed ? DIMMED : 0.85, outline_px: 0, outline: gap, share },
      few
        ? { rows: "marked", size_px: size_px * 1.2 + 4 * ratio, alpha: 1, outline_px: 1.2 * ratio, outline: gap, share }
        : { rows: "marked", size_px, alpha: 0.95, outline_px: 0, outline: gap, share },
      { rows: "focus", size_px: size_px * 1.2 + 9 * ratio, alpha: 1, outline_px: 2.5 * ratio, outline: ring },
    ]);
    this.drawn = { frames: this.drawn.frames + 1, share };
    this._events.onDrawn();
    if (this._isNew && this.points) performance.mark("map-drawn", { detail: this.points.count });
    this._isNew = false;
  }

  /**
   * Draw fewer points while moving where frames are slow, all of them again at rest.
   * @param {number} frameMs since the frame before, also of this movement
   */
  _adapt(frameMs) {
    this._frameMs = Math.min(frameMs, 1000);
    const least = Math.min(1, FEWEST / (this.points?.count || 1));
    if (frameMs > SLOW_FRAME_MS) this._share = Math.max(least, this._share * Math.max(0.2, SLOW_FRAME_MS / frameMs));
    else if (frameMs < FAST_FRAME_MS) this._share = Math.min(1, this._share * 1.04);
  }

  /** Say anew which rows are drawn. */
  _upload() {
    const slots = this.colouring?.slots;
    const shown = this.shown();
    this._renderer.setRows("all", shown);
    const marked =
      this._emphasised !== null && slots
        ? shown.filter((row) => slots[row] === this._emphasised)
        : Uint32Array.from(this._marked ?? []).filter((row) => this.isShown(row));
    this._renderer.setRows("marked", marked);
    this.invalidate();
  }

  _resize() {
    const ratio = Math.min(devicePixelRatio, MAX_PIXEL_RATIO);
    this.camera.width = this.canvas.clientWidth;
    this.camera.height = this.canvas.clientHeight;
    this.canvas.width = Math.round(this.camera.width * ratio);
    this.canvas.height = Math.round(this.camera.height * ratio);
    // A resized canvas is blank until it is drawn: not a frame later.
    cancelAnimationFrame(this._frame);
    this._draw(performance.now());
    this._events.onView();
  }
}

/**
 * A fixed random order, so that no class lies on top of the others and any first part is a fair sample.
 * @param {number} count
 * @returns {Uint32Array}
 */
function shuffled(count) {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  let state = 1;
  for (let i = count - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = state % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
