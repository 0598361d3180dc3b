/**
 * The right-hand side: what was found, and on top of it the image that was opened.
 * @module
 */

import { CollectionView } from "./collection.js";
import { detailView } from "./detail.js";
import { el, fill } from "./dom.js";
import { imageGrid } from "./grid.js";
import * as questions from "./questions.js";

const NEIGHBOURS = 24;

/** @typedef {import("./api.js").Item} Item */
/** @typedef {import("./collection.js").Collection} Collection */
/** @typedef {{mark: Item[] | null, active: Item | null}} Highlight */

export class Panel {
  /**
   * @param {HTMLElement} root
   * @param {{onHighlight: (highlight: Highlight) => void, onHover: (item: Item | null) => void,
   *   onOpened: (item: Item | null) => void, onFilter: (expression: string) => void, onTagged: () => void}} events
   * @param {() => string} where the filter of the moment, empty for none
   */
  constructor(root, events, where) {
    this._root = root;
    this._events = events;
    this._where = where;
    this._datasetId = "";
    /** @type {Collection | null} */
    this._collection = null;
    /** @type {CollectionView | null} that is shown now, and takes keys */
    this._view = null;
    /** @type {CollectionView | null} of the collection, also while one of its images is open */
    this._found = null;
    /** @type {Item | null} */
    this._active = null;
    this._loading = new AbortController();
    /** @type {Highlight} */
    this._highlight = { mark: null, active: null };
    this._tiles = { onOpen: (/** @type {Item} */ item) => this.open(item), onHover: events.onHover };
    root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.back();
    });
  }

  /**
   * Forget what is shown and say what can be done.
   * @param {string} datasetId
   */
  reset(datasetId) {
    this._datasetId = datasetId;
    this._collection = null;
    this._active = null;
    this._abort();
    this._home();
  }

  /**
   * Show a collection once it is there, or why it is not.
   * @param {string} title shown while waiting
   * @param {(signal: AbortSignal, say: (text: string) => void) => Promise<Collection>} find which may say what it does
   * @param {HTMLElement} [controls] shown while waiting, too
   */
  async find(title, find, controls) {
    const signal = this._abort();
    this._active = null;
    const note = el("p", { class: "note waiting", role: "status" }, "Looking…");
    this._show("found", [el("h2", { tabindex: "-1" }, title), ...(controls ? [controls] : []), note]);
    try {
      const collection = await find(signal, (text) => (note.textContent = text));
      if (!signal.aborted) this.collect(collection);
    } catch (error) {
      if (!signal.aborted) this._fail(title, /** @type {Error} */ (error));
    }
  }

  /** @param {Collection} collection */
  collect(collection) {
    this._abort();
    this._collection = collection;
    this._active = null;
    this._present(new CollectionView(this._datasetId, collection, this._tiles, this._events));
  }

  /**
   * Show anything else, such as the list of skipped files.
   * @param {HTMLElement[]} elements
   */
  tell(elements) {
    this._abort();
    this._collection = null;
    this._active = null;
    this._show("told", elements);
  }

  /** @param {Item} item */
  async open(item) {
    const signal = this._abort();
    this._active = item;
    const neighbours = el("div", { class: "neighbours" }, el("p", { class: "note waiting" }, "Looking…"));
    this._show("image", detailView(this._datasetId, item, neighbours));
    this.highlight({ mark: this._collection?.items ?? null, active: item });
    try {
      const { items } = await questions.similar(this._datasetId, item.sample_id, NEIGHBOURS, this._where(), signal);
      if (signal.aborted) return;
      fill(neighbours, items.length ? imageGrid(this._datasetId, items, this._tiles) : el("p", { class: "note" }, "It is the only one."));
      this.highlight({ mark: items, active: item });
    } catch (error) {
      if (!signal.aborted) fill(neighbours, el("p", { class: "note" }, /** @type {Error} */ (error).message));
    }
  }

  /** From the image to what was found, from there to the start. */
  back() {
    if (!this._active || !this._collection || !this._found) return this.reset(this._datasetId);
    this._abort();
    this._active = null;
    this._present(this._found);
  }

  /**
   * Show a collection, perhaps again, as it was left.
   * @param {CollectionView} view
   */
  _present(view) {
    this._show("found", view.elements);
    this._view = this._found = view;
    this.highlight({ mark: this._collection?.items ?? null, active: null });
  }

  /**
   * @param {string} key
   * @returns {boolean} whether it meant something to what is shown
   */
  key(key) {
    return this._view?.key(key) ?? false;
  }

  /** @param {Highlight} [highlight] to show on the map; the last one again when absent, for a new map */
  highlight(highlight = this._highlight) {
    this._highlight = highlight;
    this._events.onHighlight(highlight);
  }

  /** End what is being loaded. */
  _abort() {
    this._loading.abort();
    this._loading = new AbortController();
    return this._loading.signal;
  }

  /**
   * @param {"home" | "found" | "image" | "told"} view
   * @param {HTMLElement[]} elements
   */
  _show(view, elements) {
    this._view = null;
    this._events.onOpened(view === "image" ? this._active : null);
    const hadFocus = this._root.contains(document.activeElement);
    this._root.dataset.view = view;
    const label = view === "image" && this._collection ? "Back" : "Close";
    const close = el("button", { class: "button quiet close", type: "button", title: "Escape", onclick: () => this.back() }, label);
    fill(this._root, ...(view === "home" ? [] : [close]), ...elements);
    this._root.scrollTop = 0;
    if (hadFocus) /** @type {HTMLElement | null} */ (this._root.querySelector("h2"))?.focus();
  }

  /**
   * @param {string} title
   * @param {Error} error
   */
  _fail(title, error) {
    this._show("found", [el("h2", { tabindex: "-1" }, title), el("p", { class: "problem", role: "alert" }, error.message)]);
  }

  _home() {
    this._show("home", [
      el("h2", { tabindex: "-1" }, "Look around"),
      el(
        "ul",
        { class: "hints" },
        ...HINTS.map(([what, how]) => el("li", {}, el("strong", {}, what), el("span", {}, how))),
      ),
    ]);
    this.highlight({ mark: null, active: null });
  }
}

const HINTS = [
  ["Point at a dot", "to see its image."],
  ["Click it", "for the images most like it."],
  ["Draw a lasso", "with Shift + drag, to collect a region, tag it, or keep only it."],
  ["Write a filter", "above the map: label = 'cat' AND tag <> 'seen'."],
  ["Drop an image", "anywhere, to find those like it."],
  ["Near-duplicates, outliers", "and a diverse sample are on the left."],
  ["Open Findings", "to go through duplicates, leaks, wrong labels and clusters, by key."],
  ["Press ?", "for the keys."],
];
