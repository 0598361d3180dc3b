/**
 * What a queue of findings can be asked for: how similar, what to keep, across which column.
 * @module
 */

import { el } from "./dom.js";

/** @typedef {import("./queues.js").Options} Options */

const KEPT = ["largest", "oldest", "first"];
/** @type {Options} */
const USUAL = { threshold: 0.95, keep: "largest", column: "split" };

/**
 * @param {import("./address.js").Place} place
 * @returns {Options} that an address names; the usual ones where it names none or no possible one
 */
export function optionsAt({ threshold, keep, column }) {
  const isPossible = Number(threshold) >= 0.5 && Number(threshold) <= 1;
  return {
    threshold: isPossible ? Number(threshold) : USUAL.threshold,
    keep: KEPT.includes(keep) ? keep : USUAL.keep,
    column: column || USUAL.column,
  };
}

/**
 * @param {Options} options
 * @returns {{threshold: string, keep: string, column: string}} for the address: what is not usual
 */
export function unusual({ threshold, keep, column }) {
  return {
    threshold: threshold === USUAL.threshold ? "" : String(threshold),
    keep: keep === USUAL.keep ? "" : keep,
    column: column === USUAL.column ? "" : column,
  };
}

/**
 * @param {keyof Options} name
 * @param {Options} options of now
 * @param {import("./api.js").Column[]} columns of the dataset
 * @param {(change: Partial<Options>) => void} onChange
 * @returns {HTMLElement}
 */
export function control(name, options, columns, onChange) {
  if (name === "threshold") return threshold(options.threshold, onChange);
  const split = columns.filter(({ type, distinct }) => type !== "number" && distinct > 1).map((column) => column.name);
  const values = name === "keep" ? KEPT : [...new Set([options.column, ...split])];
  const choice = el("select", { onchange: () => onChange({ [name]: choice.value }) }, ...values.map((value) => el("option", { value }, value)));
  choice.value = options[name];
  return el("label", { class: "control" }, name === "keep" ? "Keep" : "Across", choice);
}

/**
 * @param {number} value
 * @param {(change: Partial<Options>) => void} onChange
 */
function threshold(value, onChange) {
  const says = "At least this similar";
  const change = () => field.value && onChange({ threshold: Number(field.value) });
  /** @type {HTMLInputElement} */
  const field = el("input", { type: "number", min: "0.5", max: "1", step: "0.005", "aria-label": says, value, onchange: change });
  return el("label", { class: "control", title: says }, el("span", { "aria-hidden": "true" }, "≥"), field);
}
