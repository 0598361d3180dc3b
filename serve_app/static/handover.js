/**
 * Hand the images that a filter leaves to another tool, as a file.
 * @module
 */

import { exportPath } from "./api.js";
import { save } from "./clipboard.js";
import { el } from "./dom.js";
import { hasKey, request, urlOf } from "./wire.js";

/** @typedef {import("./api.js").Dataset} Dataset */

/** @type {Record<string, {says: string, suffix: string, needsVectors?: boolean}>} by the name of the format */
const FORMATS = {
  parquet: { says: "Vectors and map (Parquet)", suffix: "parquet", needsVectors: true },
  csv: { says: "Table (CSV)", suffix: "csv" },
  coco: { says: "COCO (JSON)", suffix: "json" },
  "yolo-zip": { says: "YOLO's labels (zip)", suffix: "zip" },
  yolo: { says: "Paths, as YOLO takes them", suffix: "txt" },
  list: { says: "File names", suffix: "txt" },
};

export class Handover {
  /** @param {() => string} where the filter of the moment, empty for none */
  constructor(where) {
    this._where = where;
    /** @type {Dataset | null} */
    this._dataset = null;
    this._wanted = Object.keys(FORMATS)[0];
    this._options = Object.entries(FORMATS).map(([value, { says }]) => el("option", { value }, says));
    const choose = () => (this._wanted = this._format.value);
    /** @type {HTMLSelectElement} */
    this._format = el("select", { "aria-label": "Format of the file", onchange: choose }, ...this._options);
    this._button = el("button", { class: "button", type: "button", title: "The images that the filter leaves, as a file", onclick: () => this._export() }, "Export");
    this._problem = el("p", { class: "problem", role: "alert" });
    /** @type {HTMLElement[]} */
    this.elements = [el("div", { class: "row handover" }, this._format, this._button), this._problem];
  }

  /**
   * @param {Dataset | null} dataset
   * @param {boolean} hasVectors
   */
  enable(dataset, hasVectors) {
    this._dataset = dataset;
    this._format.disabled = this._button.disabled = !dataset;
    this._problem.textContent = "";
    for (const option of this._options) option.disabled = Boolean(FORMATS[option.value].needsVectors) && !hasVectors;
    this._format.value = FORMATS[this._wanted].needsVectors && !hasVectors ? "csv" : this._wanted;
  }

  /** A plain link downloads as a stream, and is for what may be large. The others pass through the page, which can say why one is refused. */
  async _export() {
    const dataset = /** @type {Dataset} */ (this._dataset);
    const format = this._format.value;
    const path = exportPath(dataset.id, format, this._where());
    const isShown = () => this._dataset?.id === dataset.id;
    const name = `${dataset.name}.${FORMATS[format].suffix}`;
    this._problem.textContent = "";
    this._button.disabled = true;
    try {
      if (hasKey() || !FORMATS[format].needsVectors) save(await (await request(path)).blob(), name);
      else el("a", { href: urlOf(path), download: name }).click();
    } catch (error) {
      if (isShown()) this._problem.textContent = /** @type {Error} */ (error).message;
    } finally {
      if (isShown()) this._button.disabled = false;
    }
  }
}
