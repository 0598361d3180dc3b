/**
 * Pictures on the map, over the points: which, where from, and which one lies under a place.
 * @module
 */

import * as api from "./api.js";
import { byId } from "./dom.js";
import { Placing } from "./placing.js";
import { SpriteStore } from "./sprites.js";

const OFF = "constellate.no-pictures";
const SIDE_PX = 52;
const EDGE_PX = 2;
const DIMMED = 0.25;
/** Zooms between two of these show the same pictures, so that they do not flicker. */
const LEVELS = 2;

/** @typedef {import("./map.js").ScatterMap} ScatterMap */

export class Pictures {
  /** @param {ScatterMap} map */
  constructor(map) {
    this._map = map;
    this._canvas = /** @type {HTMLCanvasElement} */ (byId("map-pictures"));
    this._context = /** @type {CanvasRenderingContext2D} */ (this._canvas.getContext("2d"));
    this._button = byId("pictures");
    this._button.addEventListener("click", () => this.toggle());
    this.isOn = localStorage.getItem(OFF) === null;
    this._sprites = new SpriteStore(() => map.invalidate());
    /** @type {Placing | null} of the points that are shown now */
    this._placing = null;
    /** @type {number[]} rows that stand for many, the most first */
    this._landmarks = [];
    /** @type {number[]} rows drawn in the last frame */
    this.rows = [];
    this._say();
  }

  /**
   * Forget what was shown: there are other points.
   * @param {string} datasetId
   */
  reset(datasetId) {
    this._landmarks = [];
    this.choose();
    this._sprites.reset((ids, sizePx, signal) => api.sprites(datasetId, ids, sizePx, signal));
  }

  /** Choose anew: other points are shown. */
  choose() {
    this._placing = null;
  }

  /**
   * Show some images first wherever there is no room for all.
   * @param {number[]} rows the most important first
   */
  prefer(rows) {
    this._landmarks = rows;
    this.choose();
    this._map.invalidate();
  }

  /** Show them, or points alone; the next visit remembers. */
  toggle() {
    this.isOn = !this.isOn;
    if (this.isOn) localStorage.removeItem(OFF);
    else localStorage.setItem(OFF, "1");
    this._say();
    this._map.invalidate();
  }

  /** Draw over a frame of the points. */
  draw() {
    const { canvas, camera, points } = this._map;
    if (this._canvas.width !== canvas.width || this._canvas.height !== canvas.height) {
      this._canvas.width = canvas.width;
      this._canvas.height = canvas.height;
      this._canvas.style.width = `${camera.width}px`;
      this._canvas.style.height = `${camera.height}px`;
    }
    const ratio = canvas.width / Math.max(1, camera.width);
    this._context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this._context.clearRect(0, 0, camera.width, camera.height);
    this.rows = [];
    if (!this.isOn || !points?.count) return;
    const inView = this._chosen().filter((row) => this._isInView(row));
    for (const row of inView) if (this._drawOne(row)) this.rows.push(row);
    this._sprites.want(inView, (row) => points.item(row).sample_id);
  }

  /**
   * @param {number} px
   * @param {number} py
   * @returns {number} the row of the picture there, -1 for none
   */
  rowAt(px, py) {
    const half = SIDE_PX / 2;
    const isThere = (/** @type {number} */ row) => {
      const [x, y] = this._map.placeOf(row);
      return Math.abs(x - px) <= half && Math.abs(y - py) <= half;
    };
    return this.rows.find(isThere) ?? -1;
  }

  /** @returns {number[]} rows whose pictures do not overlap, in and around the view */
  _chosen() {
    const { camera, points } = this._map;
    const level = Math.round(Math.log2(camera.scale) * LEVELS);
    this._placing ??= new Placing(points?.xy ?? new Float32Array(), this._map.shown(), this._landmarks.filter((row) => this._map.isShown(row)));
    const [left, top] = camera.toMap(-SIDE_PX, -SIDE_PX);
    const [right, bottom] = camera.toMap(camera.width + SIDE_PX, camera.height + SIDE_PX);
    return this._placing.within(SIDE_PX / Math.pow(2, (level - 0.5) / LEVELS), [left, bottom, right, top]);
  }

  /** @param {number} row */
  _isInView(row) {
    const [x, y] = this._map.placeOf(row);
    const { width, height } = this._map.camera;
    return x > -SIDE_PX && y > -SIDE_PX && x < width + SIDE_PX && y < height + SIDE_PX;
  }

  /**
   * @param {number} row
   * @returns {boolean} whether its picture is there
   */
  _drawOne(row) {
    const sprite = this._sprites.get(row);
    if (!sprite) return false;
    const [x, y] = this._map.placeOf(row);
    const [left, top] = [Math.round(x - SIDE_PX / 2), Math.round(y - SIDE_PX / 2)];
    const inner = SIDE_PX - 2 * EDGE_PX;
    this._context.globalAlpha = this._map.isDimmed(row) ? DIMMED : 1;
    this._context.fillStyle = this._map.colourOf(row);
    this._context.fillRect(left, top, SIDE_PX, SIDE_PX);
    this._context.drawImage(sprite.sheet, sprite.x, sprite.y, sprite.side, sprite.side, left + EDGE_PX, top + EDGE_PX, inner, inner);
    return true;
  }

  _say() {
    this._button.setAttribute("aria-pressed", String(this.isOn));
  }
}
