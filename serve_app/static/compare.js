/**
 * Two images side by side.
 * @module
 */

import { el } from "./dom.js";
import { fullImage } from "./images.js";

/** @typedef {import("./api.js").Item} Item */

/**
 * Show two images in a dialog; Escape closes it.
 * @param {string} datasetId
 * @param {Item} left
 * @param {Item} right
 */
export function compare(datasetId, left, right) {
  const close = el("button", { class: "button", type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = el(
    "dialog",
    { class: "compare", "aria-label": "Two images side by side" },
    el("div", { class: "sides" }, side(datasetId, left), side(datasetId, right)),
    el("div", { class: "row end" }, close),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/**
 * @param {string} datasetId
 * @param {Item} item
 */
const side = (datasetId, item) =>
  el(
    "figure",
    {},
    fullImage(datasetId, item),
    el("figcaption", { class: "breaks" }, item.file_name, item.label !== null && el("span", { class: "note" }, ` · ${item.label}`)),
  );
