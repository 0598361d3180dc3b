/**
 * A shape drawn by hand and the points in it.
 * @module
 */

const MIN_STEP_PX = 3;
/** So many fit into a filter beside others. */
const MOST_CORNERS = 100;

/** @typedef {[number, number]} Place */

/** The polygon being drawn, in pixels, shown in an SVG. */
export class Lasso {
  /** @param {SVGSVGElement} svg with one polygon */
  constructor(svg) {
    this._polygon = /** @type {SVGPolygonElement} */ (svg.querySelector("polygon"));
    /** @type {Place[]} */
    this.corners = [];
  }

  /**
   * @param {number} px
   * @param {number} py
   */
  add(px, py) {
    const last = this.corners.at(-1);
    if (last && Math.hypot(px - last[0], py - last[1]) < MIN_STEP_PX) return;
    this.corners.push([px, py]);
    this._polygon.setAttribute("points", this.corners.map(([x, y]) => `${x},${y}`).join(" "));
  }

  /** @returns {Place[]} the corners; the shape is gone from the screen */
  take() {
    const corners = this.corners;
    this.corners = [];
    this._polygon.setAttribute("points", "");
    return corners;
  }
}

/**
 * @param {Place[]} corners
 * @returns {Place[]} a hundred of them at most, evenly
 */
export function thinned(corners) {
  const step = Math.max(1, corners.length / MOST_CORNERS);
  return Array.from({ length: Math.floor(corners.length / step) }, (_, i) => corners[Math.floor(i * step)]);
}

/**
 * Even-odd rule.
 * @param {number} x
 * @param {number} y
 * @param {Place[]} corners
 * @returns {boolean}
 */
export function isInside(x, y, corners) {
  let inside = false;
  for (let i = 0, j = corners.length - 1; i < corners.length; j = i++) {
    const [xi, yi] = corners[i];
    const [xj, yj] = corners[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

/**
 * @param {import("./points.js").Points} points
 * @param {Place[]} corners in map units
 * @param {(row: number) => boolean} isShown
 * @returns {number[]} rows, in order
 */
export function rowsInside(points, corners, isShown) {
  if (corners.length < 3 || !points.index) return [];
  const xs = corners.map(([x]) => x);
  const ys = corners.map(([, y]) => y);
  const boxed = points.index.search(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys), isShown);
  return boxed.filter((row) => isInside(points.xy[2 * row], points.xy[2 * row + 1], corners)).sort((a, b) => a - b);
}
