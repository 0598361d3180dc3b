/** Hand text to the person: through the clipboard or as a file. @module */

import { el } from "./dom.js";

/** @typedef {import("./api.js").Item} Item */

/**
 * @param {string} text
 * @returns {Promise<void>}
 */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Plain http on another host than this one has no clipboard object.
  const area = el("textarea", { class: "off-screen", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/**
 * RFC 4180. Ids and names are exact: a spreadsheet may take one that begins with `=` for a formula.
 * @param {Item[]} items
 * @returns {string}
 */
export function csv(items) {
  const optional = ["score", "group"].filter((name) => items.some((item) => name in item));
  const cell = (/** @type {unknown} */ value) => {
    const text = String(value ?? "");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const names = ["sample_id", "file_name", "label", ...optional];
  const rows = items.map((item) => names.map((name) => item[/** @type {keyof Item} */ (name)]));
  return [names, ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
}

/**
 * @param {Blob} blob
 * @param {string} name
 */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
