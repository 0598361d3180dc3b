/**
 * One finding: its images side by side, large, and what helps to decide.
 * @module
 */

import { el, fill } from "./dom.js";
import { shortName, tile } from "./grid.js";
import { thumbnail } from "./images.js";
import * as questions from "./questions.js";
import { plural } from "./words.js";

const MOST_SIDES = 12;
const IMAGE_PX = 512;
const NEIGHBOURS = 8;

/** @typedef {import("./api.js").Item} Item */
/** @typedef {import("./queues.js").Finding} Finding */

export class Evidence {
  /**
   * @param {string} datasetId
   * @param {Finding} finding
   * @param {{onOpen: (item: Item) => void, isTagged: boolean, where: () => string}} options
   *   `isTagged` whether images are chosen for a tag
   */
  constructor(datasetId, finding, { onOpen, isTagged, where }) {
    this._datasetId = datasetId;
    this._onOpen = onOpen;
    this._where = where;
    this._sides = finding.sides;
    this._isTagged = isTagged;
    this._chosen = new Set(finding.sides.filter(({ isChosen }) => isChosen).map(({ item }) => item));
    const shown = finding.sides.slice(0, MOST_SIDES);
    const rest = finding.sides.length - shown.length;
    const near = el("div", { class: "near" });
    if (finding.near) this._neighbours(near, finding.near);
    const sides = el("div", { class: `sides${shown.length > 2 ? " many" : ""}` }, ...shown.map((side) => this._side(side)), finding.near && near);
    this.elements = [
      el("h2", { class: "breaks" }, finding.says),
      sides,
      ...(rest ? [el("p", { class: "note" }, `and ${plural(rest, "more", "more")}, which the plan names and the tag goes on, too`)] : []),
    ];
  }

  /** @returns {Item[]} the images that a tag goes on */
  get chosen() {
    return this._sides.map(({ item }) => item).filter((item) => this._chosen.has(item));
  }

  /** @param {Finding["sides"][number]} side */
  _side({ item, says, isChosen }) {
    const figure = el("figure", { class: isChosen && this._isTagged ? "chosen" : "" });
    const image = thumbnail(this._datasetId, item, IMAGE_PX);
    image.loading = "eager";
    const open = el("button", { class: "large", type: "button", title: item.file_name, onclick: () => this._onOpen(item) }, image);
    const check = el("input", { type: "checkbox", checked: isChosen, "aria-label": `Tag ${item.file_name}` });
    check.addEventListener("change", () => {
      if (check.checked) this._chosen.add(item);
      else this._chosen.delete(item);
      figure.classList.toggle("chosen", check.checked);
    });
    const name = el("span", { class: "breaks" }, shortName(item.file_name));
    fill(figure, open, el("figcaption", {}, el("label", {}, this._isTagged && check, el("strong", { class: "breaks" }, says)), name));
    return figure;
  }

  /**
   * @param {HTMLElement} root
   * @param {Item} item
   */
  async _neighbours(root, item) {
    const { items } = await questions.similar(this._datasetId, item.sample_id, NEIGHBOURS, this._where()).catch(() => ({ items: /** @type {Item[]} */ ([]) }));
    const tiles = items.map((one) => {
      const shown = tile(this._datasetId, one, { onOpen: this._onOpen, onHover: () => {} });
      shown.append(el("span", { class: "note one-line" }, one.label ?? ""));
      return shown;
    });
    if (items.length) fill(root, el("h3", {}, "Most similar"), el("ul", { class: "grid" }, ...tiles));
  }
}
