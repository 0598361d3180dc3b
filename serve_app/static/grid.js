/**
 * Thumbnails as a grid of buttons that grows as it is scrolled.
 * @module
 */

import { arrowKeys, el } from "./dom.js";
import { thumbnail } from "./images.js";
import { similarity } from "./words.js";

const PAGE = 80;
const TILE_PX = 128;

/** @typedef {import("./api.js").Item} Item */
/** @typedef {import("./selection.js").Selection} Selection */
/** @typedef {{onOpen: (item: Item) => void, onHover: (item: Item | null) => void, selection?: Selection}} TileEvents */

/**
 * @param {string} datasetId
 * @param {Item} item
 * @param {TileEvents} events
 * @returns {HTMLLIElement}
 */
export function tile(datasetId, item, { onOpen, onHover, selection }) {
  const score = item.score === undefined ? null : el("span", { class: "score" }, similarity(item.score));
  const about = item.label === null ? item.file_name : `${item.file_name} · ${item.label}`;
  const button = el(
    "button",
    {
      class: "tile",
      type: "button",
      title: about,
      "aria-pressed": selection && String(selection.has(item.sample_id)),
      onclick: (/** @type {MouseEvent} */ event) => selection?.click(event, item) || onOpen(item),
      onpointerenter: () => onHover(item),
      onpointerleave: () => onHover(null),
      onfocus: () => onHover(item),
      onblur: () => onHover(null),
    },
    el("span", { class: "frame" }, thumbnail(datasetId, item, TILE_PX), score),
    el("span", { class: "name" }, shortName(item.file_name)),
  );
  if (selection) {
    button.addEventListener("select-tile", () => selection.include(button, item));
    button.addEventListener("keydown", (event) => {
      if (event.key !== "x" || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      selection.toggle(button, item);
    });
  }
  return el("li", {}, button);
}

/**
 * @param {string} fileName
 * @returns {string} without its folders
 */
export const shortName = (fileName) => fileName.slice(fileName.lastIndexOf("/") + 1) || fileName;

/**
 * @param {string} datasetId
 * @param {Item[]} items
 * @param {TileEvents} events
 * @returns {HTMLUListElement}
 */
export function imageGrid(datasetId, items, events) {
  const list = el("ul", { class: "grid" });
  let shown = 0;
  onReached(list, () => {
    const page = items.slice(shown, shown + PAGE);
    shown += page.length;
    list.append(...page.map((item) => tile(datasetId, item, events)));
    return shown < items.length;
  });
  arrowKeys(list);
  return list;
}

/**
 * Call `more` now and whenever the end of the list comes near the view, until it answers false.
 * @param {HTMLElement} list
 * @param {() => boolean | Promise<boolean>} more
 */
export function onReached(list, more) {
  const end = el("li", { class: "sentinel", "aria-hidden": "true" });
  const observer = new IntersectionObserver(
    async (entries) => {
      if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
      observer.disconnect();
      const goesOn = await more();
      list.append(end);
      if (goesOn) observer.observe(end);
      else end.remove();
    },
    { rootMargin: "600px" },
  );
  list.append(end);
  observer.observe(end);
}
