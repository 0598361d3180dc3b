/**
 * What a queue of findings can be asked for: how similar, what to keep, across which column, by which names.
 * @module
 */

import { el } from "./dom.js";

/** @typedef {import("./queues.js").Options} Options */

const KEPT = ["largest", "oldest", "first"];
/** @type {Options} */
const USUAL = { threshold: 0.95, keep: "largest", column: "split", phrases: "" };

/**
 * @param {import("./address.js").Place} place
 * @returns {Options} that an address names; the usual ones where it names none or no possible one
 */
export function optionsAt({ threshold, keep, column, phrases }) {
  const isPossible = Number(threshold) >= 0.5 && Number(threshold) <= 1;
  return {
    threshold: isPossible ? Number(threshold) : USUAL.threshold,
    keep: KEPT.includes(keep) ? keep : USUAL.keep,
    column: column || USUAL.column,
    phrases,
  };
}

/**
 * @param {Options} options
 * @returns {{threshold: string, keep: string, column: string, phrases: string}} for the address: what is not usual
 */
export function unusual({ threshold, keep, column, phrases }) {
  return {
    threshold: threshold === USUAL.threshold ? "" : String(threshold),
    keep: keep === USUAL.keep ? "" : keep,
    column: column === USUAL.column ? "" : column,
    phrases,
  };
}

/**
 * @param {Options} options
 * @param {keyof Options} name
 * @returns {[string, string][]} parameters of a question
 */
export function parameters(options, name) {
  if (name !== "phrases") return [[name, String(options[name])]];
  const phrases = options.phrases.split(",").map((phrase) => phrase.trim());
  return phrases.filter(Boolean).map((phrase) => ["phrases", phrase]);
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
  if (name === "phrases") return names(options.phrases, onChange);
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

/**
 * @param {string} value
 * @param {(change: Partial<Options>) => void} onChange
 */
function names(value, onChange) {
  const title = "Each cluster is named by the one that most of its images fit best; the vectors must be of a model that takes text, such as siglip2-base";
  const change = () => onChange({ phrases: field.value.trim() });
  /** @type {HTMLInputElement} */
  const field = el("input", { placeholder: "a cat, a dog, a street", maxlength: 2000, autocomplete: "off", value, onchange: change });
  return el("label", { class: "control names", title }, "Name by", field);
}
