/**
 * Where the map's square ±1 lies on the screen.
 * @module
 */

const MARGIN_PX = 28;
const MIN_ZOOM = 0.5;
const MAX_ZOOM = 4000;

/** A centre in map units and a zoom, 1 showing everything. Pixels are CSS pixels, y down; map units have y up. */
export class Camera {
  constructor() {
    this.x = 0;
    this.y = 0;
    this.zoom = 1;
    this.width = 1;
    this.height = 1;
  }

  /** @returns {number} CSS pixels of one map unit */
  get scale() {
    return (this.zoom * Math.max(40, Math.min(this.width, this.height) - 2 * MARGIN_PX)) / 2;
  }

  /** Show everything. */
  fit() {
    this.x = 0;
    this.y = 0;
    this.zoom = 1;
  }

  /**
   * @param {number} dx in pixels
   * @param {number} dy in pixels
   */
  panBy(dx, dy) {
    this.x = clamp(this.x - dx / this.scale, -1.5, 1.5);
    this.y = clamp(this.y + dy / this.scale, -1.5, 1.5);
  }

  /**
   * Zoom and keep what lies at a pixel there.
   * @param {number} factor
   * @param {number} px
   * @param {number} py
   */
  zoomAt(factor, px, py) {
    const [x, y] = this.toMap(px, py);
    this.zoom = clamp(this.zoom * factor, MIN_ZOOM, MAX_ZOOM);
    const [nowX, nowY] = this.toMap(px, py);
    this.x += x - nowX;
    this.y += y - nowY;
  }

  /**
   * @param {number} px
   * @param {number} py
   * @returns {[number, number]}
   */
  toMap(px, py) {
    return [this.x + (px - this.width / 2) / this.scale, this.y - (py - this.height / 2) / this.scale];
  }

  /**
   * @param {number} x
   * @param {number} y
   * @returns {[number, number]}
   */
  toScreen(x, y) {
    return [this.width / 2 + (x - this.x) * this.scale, this.height / 2 - (y - this.y) * this.scale];
  }

  /** @returns {[number, number, number, number]} scale x, scale y, offset x, offset y into clip space */
  clip() {
    const sx = (2 * this.scale) / this.width;
    const sy = (2 * this.scale) / this.height;
    return [sx, sy, -this.x * sx, -this.y * sy];
  }
}

/**
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
