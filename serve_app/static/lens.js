/**
 * How the dataset is looked at: which images, and what their colours say.
 * @module
 */

import { place, placed } from "./address.js";
import * as api from "./api.js";
import { byCategory, byNumber, shortTime } from "./colouring.js";
import { byId, el, fill } from "./dom.js";
import { FilterBar } from "./filter.js";
import { namesTags } from "./queues.js";
import { Problem } from "./wire.js";

/** @typedef {import("./points.js").Points} Points */
/** @typedef {import("./colouring.js").Colouring} Colouring */
/** @typedef {import("./api.js").Column} Column */

const LABEL = "label";
/** Columns that are no use as colours: nearly every image has a value of its own. */
const NAMES = new Set(["sample_id", "file_name"]);

export class Lens {
  /**
   * @param {{onFilter: (where: string, passing: Uint8Array | null) => void, onColouring: (colouring: Colouring | null) => void,
   *   onColumns: () => void}} events `onColumns` after the columns were read
   */
  constructor(events) {
    this._events = events;
    this._id = "";
    /** @type {Points | null} */
    this._points = null;
    this._wanted = "";
    /** @type {Promise<void>} */
    this._reading = Promise.resolve();
    this._filtering = new AbortController();
    this._colouring = new AbortController();
    this.bar = new FilterBar({ onChange: () => this._filter() });
    this._choice = /** @type {HTMLSelectElement} */ (byId("colour-by"));
    this._choice.addEventListener("change", () => this._colour(this._choice.value));
  }

  /** @returns {string} the filter, empty for none */
  get where() {
    return this.bar.where;
  }

  /** @param {string} datasetId empty for none; the filter and colour of the address count where it names this dataset */
  choose(datasetId) {
    const { dataset, where, colour } = placed();
    const isSame = dataset === datasetId;
    if (!isSame) this.bar.tell("");
    if (!isSame) place({ where: [], colour: "", image: "", words: "", finding: "", item: "", threshold: "", keep: "", column: "", phrases: "" });
    this._filtering.abort();
    this._colouring.abort();
    this._id = datasetId;
    this._points = null;
    this._wanted = isSame ? colour : "";
    this.bar.show(isSame ? where : []);
    this.bar.enable(Boolean(datasetId));
    if (datasetId) this._reading = this.readColumns();
  }

  /** Read which columns there are: a file or a tag may have brought new ones. */
  async readColumns() {
    const id = this._id;
    const columns = await api.listColumns(id).catch(() => /** @type {Column[]} */ ([]));
    if (id !== this._id) return;
    this.bar.columns = columns;
    this._events.onColumns();
    const useful = columns.filter(({ name, count }) => !NAMES.has(name) && (count || name === LABEL));
    const names = [LABEL, ...useful.map(({ name }) => name).filter((name) => name !== LABEL)];
    fill(this._choice, ...names.map((name) => el("option", { value: name }, name)));
    this._choice.disabled = !this._points;
    this._choice.value = names.includes(this._wanted || LABEL) ? this._wanted || LABEL : LABEL;
  }

  /**
   * @param {Points | null} points
   * @returns {Colouring | null} by label, which comes with the points; another one follows
   */
  take(points) {
    this._points = points;
    this._choice.disabled = !points;
    if (points && this._wanted && this._wanted !== LABEL) this._reading.then(() => this._colour(this._wanted));
    if (points && this.where) this._filter();
    return points && byCategory(LABEL, points.labels());
  }

  /** Tags have changed: there may be a new column, and the filter may choose other images. */
  tagsChanged() {
    this.readColumns();
    if (namesTags(this.where)) this._filter();
  }

  /** Ask for the images that pass and tell of them. */
  async _filter() {
    this._filtering.abort();
    this._filtering = new AbortController();
    const { signal } = this._filtering;
    const { where } = this;
    place({ where: this.bar.expressions });
    try {
      const passing = where ? await this._passing(where, signal) : null;
      if (!signal.aborted) this._events.onFilter(where, passing);
    } catch (error) {
      if (!signal.aborted) this._refuse(/** @type {Error} */ (error));
    }
  }

  /**
   * @param {string} where
   * @param {AbortSignal} signal
   * @returns {Promise<Uint8Array | null>} 1 for each point that passes; null without a map, where only the filter itself is tried
   */
  async _passing(where, signal) {
    const points = this._points;
    if (!points) {
      await api.listSamples(this._id, 1, null, where);
      return null;
    }
    const passing = new Uint8Array(points.count);
    for (const id of await api.sampleIdsOnMap(this._id, where, signal)) {
      const row = points.rowOf(id);
      if (row >= 0) passing[row] = 1;
    }
    return passing;
  }

  /** @param {Error} error of the filter, or of the way to the service */
  _refuse(error) {
    const isTheFilters = error instanceof Problem && error.status >= 400 && error.status < 500;
    if (!isTheFilters) return this.bar.complain(error.message);
    const { position } = error.body;
    this.bar.refuse(error.message, typeof position === "number" ? position : undefined);
    place({ where: this.bar.expressions });
  }

  /** @param {string} column */
  async _colour(column) {
    this._colouring.abort();
    this._colouring = new AbortController();
    const { signal } = this._colouring;
    this._wanted = column;
    place({ colour: column === LABEL ? "" : column });
    const points = this._points;
    if (!points) return;
    try {
      const colouring = column === LABEL ? byCategory(LABEL, points.labels()) : await this._byColumn(column, points, signal);
      if (!signal.aborted && points === this._points) this._events.onColouring(colouring);
    } catch (error) {
      if (!signal.aborted) this.bar.complain(/** @type {Error} */ (error).message);
    }
  }

  /**
   * @param {string} column
   * @param {Points} points
   * @param {AbortSignal} signal
   * @returns {Promise<Colouring>}
   */
  async _byColumn(column, points, signal) {
    const type = this.bar.columns.find(({ name }) => name === column)?.type;
    const { ids, values } = await api.columnValues(this._id, column, signal);
    const found = new Array(points.count).fill(null);
    ids.forEach((id, i) => {
      const row = points.rowOf(id);
      if (row >= 0) found[row] = values[i];
    });
    if (type === "number") return byNumber(column, found);
    return type === "time" ? byNumber(column, found, shortTime) : byCategory(column, found);
  }
}
