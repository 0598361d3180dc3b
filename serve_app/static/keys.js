/**
 * Keys of the page, and the list of them under `?`.
 * @module
 */

import { el } from "./dom.js";

const KEYS = [
  ["/", "write a filter"],
  ["?", "this list"],
  ["Escape", "back, close"],
  ["arrows", "move the map, or the focus in a grid"],
  ["+ − 0", "zoom in, out, show all"],
  ["L", "draw a lasso (or Shift + drag)"],
  ["P", "pictures on the map, on and off"],
  ["Enter", "open the image in the middle of the map, or in focus"],
  ["X", "select the image in focus (or Ctrl + click; Shift + click for a range)"],
  ["C", "two selected images side by side"],
  ["T", "tag the selected images, or all of the collection"],
  ["1 … 9", "the tags used last"],
  ["Z", "undo the last tag"],
  ["J K, arrows", "in findings: next, previous"],
  ["A", "in findings: accept what is suggested"],
  ["S", "in findings: skip"],
];

/** Show the list of keys. */
export function showKeys() {
  if (document.querySelector("dialog[open]")) return;
  const close = el("button", { class: "button main", type: "button", onclick: () => dialog.close() }, "Close");
  const rows = KEYS.flatMap(([key, does]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, does)]);
  const dialog = el("dialog", { "aria-label": "Keys" }, el("h2", {}, "Keys"), el("dl", { class: "keys" }, ...rows), el("div", { class: "row end" }, close));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

const FIELD = "input:not([type='checkbox']), textarea, select";

/** The field that had the focus last, until a person leaves it. @type {HTMLElement | null} */
let field = null;

/** @returns {boolean} whether somebody writes in a field that the page has taken away */
function hasLostField() {
  if (field?.isConnected && field.checkVisibility()) field = null;
  return field !== null;
}

function watchFields() {
  addEventListener("focusin", ({ target }) => {
    if (target instanceof HTMLElement && target.matches(FIELD)) field = target.closest("dialog") ? null : target;
  });
  addEventListener("pointerdown", () => (field = null), true);
  addEventListener("keydown", ({ key }) => void (["Tab", "Escape"].includes(key) && (field = null)), true);
}

/**
 * Call what a key means, unless somebody is writing or a dialog is open.
 * @param {Record<string, () => unknown>} actions by key; one that answers false leaves the key to the browser
 */
export function onKeys(actions) {
  watchFields();
  addEventListener("keydown", (event) => {
    const writes = event.target instanceof HTMLElement && event.target.closest(FIELD);
    if (writes || hasLostField() || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const action = actions[event.key];
    if (!action || event.defaultPrevented) return;
    if (action() !== false) event.preventDefault();
  });
}
