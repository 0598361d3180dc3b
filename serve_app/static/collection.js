/**
 * A set of images found in some way: how many, what to do with them, and the images.
 * @module
 */

import { copy, csv, save } from "./clipboard.js";
import { compare } from "./compare.js";
import { literal } from "./completion.js";
import { el } from "./dom.js";
import { imageGrid, onReached, tile } from "./grid.js";
import { Selection } from "./selection.js";
import { Tagging } from "./tagging.js";
import { count, plural, similarity } from "./words.js";

const GROUPS_PAGE = 20;
const GROUP_TILES = 60;
const SAID_MS = 1600;
/** A filter has at most 5,000 characters; others may stand beside this one. */
const FILTER_LETTERS = 4000;

/** @typedef {import("./api.js").Item} Item */
/** @typedef {import("./grid.js").TileEvents} TileEvents */
/**
 * @typedef {object} Collection
 * @property {string} title
 * @property {string} note
 * @property {Item[]} items
 * @property {Item[][]} [groups] the items, where they come in groups
 * @property {string} fileName of the download, without `.csv`
 * @property {string} [filter] that chooses the items
 * @property {HTMLElement} [controls]
 * @property {string} empty what to do when there are none
 */

/** A collection on the page: its images, which of them are selected, and what can be done with them. */
export class CollectionView {
  /**
   * @param {string} datasetId
   * @param {Collection} collection
   * @param {TileEvents} events
   * @param {{onFilter: (expression: string) => void, onTagged: () => void}} actions
   */
  constructor(datasetId, collection, events, { onFilter, onTagged }) {
    this._datasetId = datasetId;
    this._collection = collection;
    this.selection = new Selection(() => this._said());
    this._tiles = { ...events, selection: this.selection };
    this._selected = el("span", { class: "note" });
    this._compare = el("button", { class: "button quiet", type: "button", title: "Key C", onclick: () => this.compare() }, "Side by side");
    this._clear = el("button", { class: "button quiet", type: "button", onclick: () => this.selection.clear() }, "Select none");
    this.tagging = new Tagging(datasetId, () => this._chosen, onTagged);
    this._keep = el("button", { class: "button", type: "button", onclick: () => onFilter(this._filter) }, "Keep only these");
    this.elements = this._built();
    this._said();
  }

  /** @returns {Item[]} the selected images, or all */
  get _chosen() {
    return this.selection.items.length ? this.selection.items : this._collection.items;
  }

  /** @returns {string} a filter that chooses them; it may be too long */
  get _filter() {
    if (!this.selection.items.length && this._collection.filter) return this._collection.filter;
    return `sample_id IN (${this._chosen.map(({ sample_id }) => literal(sample_id)).join(", ")})`;
  }

  /** Show the two selected images side by side. */
  compare() {
    const [left, right] = this.selection.items;
    if (right) compare(this._datasetId, left, right);
  }

  /**
   * @param {string} key
   * @returns {boolean} whether it meant something here
   */
  key(key) {
    if (key !== "c") return this.tagging.key(key);
    this.compare();
    return true;
  }

  _built() {
    const { title, note, items, groups, fileName, controls, empty } = this._collection;
    const heading = el("h2", { tabindex: "-1" }, title);
    if (!items.length) return present([heading, controls, el("p", { class: "note" }, empty)]);
    const actions = el(
      "div",
      { class: "row" },
      sayingButton("Copy ids", "Copied", () => copy(this._chosen.map(({ sample_id }) => sample_id).join("\n"))),
      sayingButton("Download CSV", "Saved", () => save(new Blob([csv(this._chosen)], { type: "text/csv" }), `${fileName}.csv`)),
      this._keep,
    );
    const selected = el("div", { class: "row selected" }, this._selected, this._compare, this._clear);
    const images = groups ? groupList(this._datasetId, groups, this._tiles) : imageGrid(this._datasetId, items, this._tiles);
    return present([heading, el("p", { class: "note" }, note), controls, actions, ...this.tagging.elements, selected, images]);
  }

  _said() {
    const n = this.selection.items.length;
    this._selected.textContent = n ? `${count(n)} selected` : "Ctrl + click selects, Shift + click a range.";
    this._compare.hidden = n !== 2;
    this._clear.hidden = !n;
    this._keep.disabled = this._filter.length > FILTER_LETTERS;
  }
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
