/**
 * The colour of each point: a slot by the value that its image has in a column.
 * @module
 */

import { colours, MAX_CLASSES, OTHER, scaleColours, UNLABELLED } from "./palette.js";
import { count } from "./words.js";

/** @typedef {{slot: number, label: string, count: number}} LabelClass */
/** @typedef {string | number | boolean | null} Value */
/**
 * @typedef {object} Colouring
 * @property {string} column
 * @property {Uint8Array} slots of each point
 * @property {LabelClass[]} classes that occur, most frequent first
 * @property {[string, string] | null} range least and greatest, where the slots are steps of a scale
 * @property {() => string[]} palette a CSS colour for each slot, in the present theme
 */

/**
 * Number the values by frequency; the twenty most frequent have a slot of their own.
 * @param {string} column
 * @param {ArrayLike<Value>} values
 * @returns {Colouring}
 */
export function byCategory(column, values) {
  const named = column === "label" ? "label" : "value";
  const counts = new Map();
  for (let row = 0; row < values.length; row++) counts.set(values[row], (counts.get(values[row]) ?? 0) + 1);
  const missing = counts.get(null);
  counts.delete(null);
  const sorted = [...counts].sort(([a, n], [b, m]) => m - n || (String(a) < String(b) ? -1 : 1));
  const classes = sorted.slice(0, MAX_CLASSES).map(([value, n], slot) => ({ slot, label: String(value), count: n }));
  const slotOf = new Map(sorted.slice(0, MAX_CLASSES).map(([value], slot) => [value, slot]));
  const rest = sorted.slice(MAX_CLASSES);
  if (rest.length) classes.push({ slot: OTHER, label: `${count(rest.length)} other ${named}s`, count: rest.reduce((sum, [, n]) => sum + n, 0) });
  if (missing) classes.push({ slot: UNLABELLED, label: `no ${named}`, count: missing });
  const slots = Uint8Array.from(values, (value) => (value === null ? UNLABELLED : (slotOf.get(value) ?? OTHER)));
  return { column, slots, classes, range: null, palette: colours };
}

/**
 * Twenty steps of equal width from the least value to the greatest.
 * @param {string} column
 * @param {ArrayLike<number | null>} values
 * @param {(value: number) => string} said
 * @returns {Colouring}
 */
export function byNumber(column, values, said = shortNumber) {
  let [low, high] = [Infinity, -Infinity];
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (value === null || !Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const step = (high - low) / MAX_CLASSES || 1;
  const slots = Uint8Array.from(values, (value) =>
    value === null || !Number.isFinite(value) ? UNLABELLED : Math.min(MAX_CLASSES - 1, Math.floor((value - low) / step)),
  );
  const missing = slots.reduce((sum, slot) => sum + Number(slot === UNLABELLED), 0);
  const classes = missing ? [{ slot: UNLABELLED, label: "no value", count: missing }] : [];
  return { column, slots, classes, range: missing < values.length ? [said(low), said(high)] : null, palette: scaleColours };
}

/**
 * @param {number} value
 * @returns {string}
 */
export const shortNumber = (value) => new Intl.NumberFormat("en", { maximumSignificantDigits: 4 }).format(value);

/**
 * @param {number} value milliseconds since 1970
 * @returns {string} the day
 */
export const shortTime = (value) => new Date(value).toISOString().slice(0, 10);
