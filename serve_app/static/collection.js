/**
 * A set of images found in some way: how many, what to do with them, and the images.
 * @module
 */

import { copy, csv, save } from "./clipboard.js";
import { el } from "./dom.js";
import { imageGrid, onReached, tile } from "./grid.js";
import { plural, similarity } from "./words.js";

const GROUPS_PAGE = 20;
const GROUP_TILES = 60;
const SAID_MS = 1600;

/** @typedef {import("./api.js").Item} Item */
/** @typedef {import("./grid.js").TileEvents} TileEvents */
/**
 * @typedef {object} Collection
 * @property {string} title
 * @property {string} note
 * @property {Item[]} items
 * @property {Item[][]} [groups] the items, where they come in groups
 * @property {string} fileName of the download, without `.csv`
 * @property {HTMLElement} [controls]
 * @property {string} empty what to do when there are none
 */

/**
 * @param {string} datasetId
 * @param {Collection} collection
 * @param {TileEvents} events
 * @returns {HTMLElement[]}
 */
export function collectionView(datasetId, { title, note, items, groups, fileName, controls, empty }, events) {
  const heading = el("h2", { tabindex: "-1" }, title);
  if (!items.length) return present([heading, controls, el("p", { class: "note" }, empty)]);
  const actions = el(
    "div",
    { class: "row" },
    sayingButton("Copy ids", "Copied", () => copy(items.map(({ sample_id }) => sample_id).join("\n"))),
    sayingButton("Download CSV", "Saved", () => save(new Blob([csv(items)], { type: "text/csv" }), `${fileName}.csv`)),
  );
  const images = groups ? groupList(datasetId, groups, events) : imageGrid(datasetId, items, events);
  return present([heading, el("p", { class: "note" }, note), controls, actions, images]);
}

/** @param {(HTMLElement | undefined)[]} elements */
const present = (elements) => /** @type {HTMLElement[]} */ (elements.filter(Boolean));

/**
 * A button that says for a moment that it worked; its width does not change.
 * @param {string} label
 * @param {string} done
 * @param {() => void | Promise<void>} action
 */
export function sayingButton(label, done, action) {
  const text = el("span", { "aria-live": "polite" }, label);
  return el("button", { class: "button fixed", type: "button", onclick: act }, text);
  async function act() {
    try {
      await action();
      text.textContent = done;
    } catch {
      text.textContent = "Not possible";
    }
    setTimeout(() => (text.textContent = label), SAID_MS);
  }
}

/**
 * @param {string} datasetId
 * @param {Item[][]} groups
 * @param {TileEvents} events
 */
function groupList(datasetId, groups, events) {
  const list = el("ul", { class: "groups" });
  let shown = 0;
  onReached(list, () => {
    const page = groups.slice(shown, shown + GROUPS_PAGE);
    shown += page.length;
    list.append(...page.map((group) => groupRow(datasetId, group, events)));
    return shown < groups.length;
  });
  return list;
}

/**
 * @param {string} datasetId
 * @param {Item[]} group
 * @param {TileEvents} events
 */
function groupRow(datasetId, group, events) {
  const best = Math.max(...group.map(({ score }) => score ?? -1));
  const rest = group.length - GROUP_TILES;
  return el(
    "li",
    { class: "group" },
    el("p", { class: "note" }, `${plural(group.length, "image")} · up to ${similarity(best)} alike`),
    el("ul", { class: "grid" }, ...group.slice(0, GROUP_TILES).map((item) => tile(datasetId, item, events))),
    rest > 0 && el("p", { class: "note" }, `and ${plural(rest, "more", "more")}; the CSV has them all`),
  );
}
