/**
 * All images of a dataset, page after page: what remains where no map can be drawn.
 * @module
 */

import * as api from "./api.js";
import { arrowKeys, el, fill } from "./dom.js";
import { onReached, tile } from "./grid.js";

const PAGE = 100;

export class SampleList {
  /**
   * @param {HTMLElement} root
   * @param {import("./grid.js").TileEvents} events
   */
  constructor(root, events) {
    this._root = root;
    this._events = events;
    this._warning = "";
    this._shown = "";
  }

  /** @param {string} warning why there is no map; empty for none */
  warn(warning) {
    this._warning = warning;
    this._shown = "";
  }

  /**
   * What is shown already is not read again.
   * @param {string} datasetId empty for none
   * @param {string} where a filter, empty for none
   */
  show(datasetId, where) {
    const wanted = `${datasetId} ${where}`;
    if (datasetId && wanted === this._shown) return;
    this._shown = wanted;
    const grid = el("ul", { class: "grid large" });
    const problem = el("p", { class: "problem", role: "alert" });
    const warning = this._warning && el("p", { class: "warning", role: "status" }, this._warning);
    const none = !datasetId && el("p", { class: "note" }, "Choose a dataset, or add a folder of images.");
    fill(this._root, warning, none, grid, problem);
    if (!datasetId) return;
    /** @type {string | null} */
    let cursor = null;
    onReached(grid, async () => {
      try {
        const page = await api.listSamples(datasetId, PAGE, cursor, where);
        cursor = page.next_cursor;
        grid.append(...page.items.map(({ id, file_name, label }) => tile(datasetId, { sample_id: id, file_name, label }, this._events)));
        return cursor !== null;
      } catch (error) {
        problem.textContent = /** @type {Error} */ (error).message;
        this._shown = "";
        return false;
      }
    });
    arrowKeys(grid);
  }
}
