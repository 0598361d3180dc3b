/**
 * The points of a map in columns, straight from Arrow.
 * @module
 */

import { MAX_CLASSES, OTHER, UNLABELLED } from "./palette.js";
import { tableFromIPC } from "./vendor/arrow.js";
import Flatbush from "./vendor/flatbush.js";

/** @typedef {import("./api.js").Item} Item */
/** @typedef {{slot: number, label: string, count: number}} LabelClass */
/** @typedef {{length: number, get(index: number): any}} Column */

/** Places (scaled into the square ±1, x and y alike), label classes and names of N samples. */
export class Points {
  /**
   * @param {Column} ids
   * @param {Column} names
   * @param {Column} labels
   * @param {Float32Array} xy 2N
   */
  constructor(ids, names, labels, xy) {
    this.count = ids.length;
    this.xy = xy;
    this._ids = ids;
    this._names = names;
    this._labels = labels;
    /** @type {Map<string, number> | null} */
    this._rows = null;
    const { classes, slots } = classify(labels);
    /** @type {LabelClass[]} */
    this.classes = classes;
    /** Class slot of each point. */
    this.slots = slots;
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
    return new Points(ids, names, labels, scaled(x.toArray(), y.toArray()));
  }

  /**
   * @param {number} row
   * @returns {Item}
   */
  item(row) {
    return { sample_id: this._ids.get(row), file_name: this._names.get(row), label: this._labels.get(row) };
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
 * Number the labels by frequency; the twenty most frequent have a slot of their own.
 * @param {Column} labels
 * @returns {{classes: LabelClass[], slots: Uint8Array}}
 */
function classify(labels) {
  /** @type {Map<string | null, number>} */
  const counts = new Map();
  const values = Array.from({ length: labels.length }, (_, row) => labels.get(row));
  for (const label of values) counts.set(label, (counts.get(label) ?? 0) + 1);
  const named = [...counts].filter(([label]) => label !== null);
  named.sort(([a, n], [b, m]) => m - n || (String(a) < String(b) ? -1 : 1));
  const classes = named.slice(0, MAX_CLASSES).map(([label, count], slot) => ({ slot, label: String(label), count }));
  const rest = named.slice(MAX_CLASSES);
  const unlabelled = counts.get(null);
  const restCount = rest.reduce((sum, [, count]) => sum + count, 0);
  if (rest.length) classes.push({ slot: OTHER, label: `${rest.length} other labels`, count: restCount });
  if (unlabelled) classes.push({ slot: UNLABELLED, label: "no label", count: unlabelled });
  const slotOf = new Map(classes.filter(({ slot }) => slot < OTHER).map(({ label, slot }) => [label, slot]));
  return { classes, slots: Uint8Array.from(values, (label) => (label === null ? UNLABELLED : slotOf.get(label) ?? OTHER)) };
}

/**
 * Centre the points on 0 and scale the longer side of their bounds to 2.
 * @param {ArrayLike<number>} x
 * @param {ArrayLike<number>} y
 * @returns {Float32Array}
 */
function scaled(x, y) {
  const [left, right] = bounds(x);
  const [bottom, top] = bounds(y);
  const half = Math.max(right - left, top - bottom) / 2 || 1;
  const xy = new Float32Array(2 * x.length);
  for (let i = 0; i < x.length; i++) {
    xy[2 * i] = (x[i] - (left + right) / 2) / half;
    xy[2 * i + 1] = (y[i] - (bottom + top) / 2) / half;
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
