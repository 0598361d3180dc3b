/**
 * The points of a map in columns, straight from Arrow.
 * @module
 */

import { tableFromIPC } from "./vendor/arrow.js";
import Flatbush from "./vendor/flatbush.js";

/** @typedef {import("./api.js").Item} Item */
/** @typedef {{length: number, get(index: number): any}} Column */
/** @typedef {{middleX: number, middleY: number, half: number}} Frame */

/** What rounding cannot move a point by, as a share of the map. */
const MOVED = 1e-4;

/** Places (scaled into the square ±1, x and y alike), labels and names of N samples. */
export class Points {
  /**
   * @param {Column} ids
   * @param {Column} names
   * @param {Column} labels
   * @param {Frame} frame
   * @param {Float32Array} xy 2N, within the frame
   */
  constructor(ids, names, labels, frame, xy) {
    this.count = ids.length;
    this.xy = xy;
    this._frame = frame;
    this._ids = ids;
    this._names = names;
    this._labels = labels;
    /** @type {Map<string, number> | null} */
    this._rows = null;
    this.index = indexOf(xy);
  }

  /**
   * @param {Response} response of `GET …/coordinates` as Arrow
   * @returns {Promise<Points>}
   */
  static async read(response) {
    const table = await tableFromIPC(response);
    const [ids, x, y, names, labels] = ["sample_id", "x", "y", "file_name", "label"].map((name) => {
      const column = table.getChild(name);
      if (!column) throw new Error(`The map has no column ${name}.`);
      return column;
    });
    const frame = frameOf(x.toArray(), y.toArray());
    return new Points(ids, names, labels, frame, scaled(x.toArray(), y.toArray(), frame));
  }

  /**
   * @param {number} row
   * @returns {Item}
   */
  item(row) {
    return { sample_id: this._ids.get(row), file_name: this._names.get(row), label: this._labels.get(row) };
  }

  /** @returns {(string | null)[]} the label of each point */
  labels() {
    return Array.from({ length: this.count }, (_, row) => this._labels.get(row));
  }

  /**
   * @param {number} x in the square ±1
   * @param {number} y
   * @returns {[number, number]} as the service counts
   */
  toService(x, y) {
    const { middleX, middleY, half } = this._frame;
    return [x * half + middleX, y * half + middleY];
  }

  /**
   * @param {Points} other
   * @returns {boolean} whether a sample of both has another place there
   */
  isElsewhere(other) {
    let row = 0;
    while (row < this.count && other.rowOf(this._ids.get(row)) < 0) row++;
    if (row === this.count) return row > 0;
    const [x, y] = this.placeOf(row);
    const [otherX, otherY] = other.placeOf(other.rowOf(this._ids.get(row)));
    return Math.hypot(x - otherX, y - otherY) > MOVED * this._frame.half;
  }

  /**
   * @param {number} row
   * @returns {[number, number]} as the service counts
   */
  placeOf(row) {
    return this.toService(this.xy[2 * row], this.xy[2 * row + 1]);
  }

  /**
   * @param {string} sampleId
   * @returns {number} -1 when it is not on the map
   */
  rowOf(sampleId) {
    this._rows ??= new Map(Array.from({ length: this.count }, (_, row) => [this._ids.get(row), row]));
    return this._rows.get(sampleId) ?? -1;
  }
}

/**
 * The square around the points.
 * @param {ArrayLike<number>} x
 * @param {ArrayLike<number>} y
 * @returns {Frame}
 */
function frameOf(x, y) {
  const [left, right] = bounds(x);
  const [bottom, top] = bounds(y);
  return { middleX: (left + right) / 2, middleY: (bottom + top) / 2, half: Math.max(right - left, top - bottom) / 2 || 1 };
}

/**
 * Centre the points on 0 and scale the longer side of their bounds to 2.
 * @param {ArrayLike<number>} x
 * @param {ArrayLike<number>} y
 * @param {Frame} frame
 * @returns {Float32Array}
 */
function scaled(x, y, { middleX, middleY, half }) {
  const xy = new Float32Array(2 * x.length);
  for (let i = 0; i < x.length; i++) {
    xy[2 * i] = (x[i] - middleX) / half;
    xy[2 * i + 1] = (y[i] - middleY) / half;
  }
  return xy;
}

/** @param {ArrayLike<number>} values */
function bounds(values) {
  let [low, high] = values.length ? [values[0], values[0]] : [0, 0];
  for (let i = 1; i < values.length; i++) {
    if (values[i] < low) low = values[i];
    else if (values[i] > high) high = values[i];
  }
  return [low, high];
}

/**
 * @param {Float32Array} xy
 * @returns {Flatbush | null} null without points: an empty index cannot be built
 */
function indexOf(xy) {
  if (!xy.length) return null;
  const index = new Flatbush(xy.length / 2, 16, Float32Array);
  for (let i = 0; i < xy.length; i += 2) index.add(xy[i], xy[i + 1]);
  index.finish();
  return index;
}
