/**
 * Values with their colours: click to hide, point to bring out.
 * @module
 */

import { el, fill } from "./dom.js";
import { MAX_CLASSES } from "./palette.js";
import { count } from "./words.js";

/** @typedef {import("./colouring.js").LabelClass} LabelClass */
/** @typedef {import("./colouring.js").Colouring} Colouring */

export class Legend {
  /**
   * @param {HTMLElement} root
   * @param {{onHidden: (slots: Set<number>) => void, onEmphasis: (slot: number | null) => void}} events
   */
  constructor(root, events) {
    this._root = root;
    this._events = events;
    /** @type {Colouring | null} */
    this._colouring = null;
    /** @type {Uint8Array | null} */
    this._passing = null;
    /** @type {Set<number>} */
    this._hidden = new Set();
  }

  /** @param {Colouring | null} colouring null without a map */
  show(colouring) {
    this._colouring = colouring;
    this._hidden = new Set();
    this._events.onHidden(this._hidden);
    this.render();
  }

  /**
   * Count only some images.
   * @param {Uint8Array | null} passing 1 for each point that passes the filter; null for all
   */
  filter(passing) {
    this._passing = passing;
    const amounts = this._amounts();
    for (const entry of /** @type {NodeListOf<HTMLElement>} */ (this._root.querySelectorAll(".entry"))) {
      fill(/** @type {HTMLElement} */ (entry.querySelector(".amount")), count(amounts.get(Number(entry.dataset.slot)) ?? 0));
    }
  }

  /** @returns {Map<number, number>} how many images of each slot pass */
  _amounts() {
    const { classes = [], slots = [] } = this._colouring ?? {};
    if (!this._passing) return new Map(classes.map((one) => [one.slot, one.count]));
    const amounts = new Map();
    this._passing.forEach((one, row) => one && amounts.set(slots[row], (amounts.get(slots[row]) ?? 0) + 1));
    return amounts;
  }

  /** Draw anew: other classes or another theme. */
  render() {
    const { classes = [], range = null } = this._colouring ?? {};
    if (!classes.length && !range) {
      fill(this._root, el("p", { class: "note" }, "They appear with the map."));
      return;
    }
    const all = el("button", { class: "link", type: "button", onclick: () => this._hide([]) }, "Show all");
    const none = el("button", { class: "link", type: "button", onclick: () => this._hide(classes.map(({ slot }) => slot)) }, "Hide all");
    const amounts = this._amounts();
    const rows = el("ul", {}, ...classes.map((one) => this._row(one, amounts.get(one.slot) ?? 0)));
    fill(this._root, range && this._scale(range), rows, classes.length > 1 && el("div", { class: "row" }, all, none));
  }

  /** @param {[string, string]} range */
  _scale([least, greatest]) {
    const steps = /** @type {Colouring} */ (this._colouring).palette().slice(0, MAX_CLASSES);
    const bar = el("div", { class: "scale", role: "img", "aria-label": `from ${least} to ${greatest}` });
    bar.style.setProperty("--steps", steps.join(", "));
    return el("div", {}, bar, el("div", { class: "ends note" }, el("span", {}, least), el("span", {}, greatest)));
  }

  /**
   * @param {LabelClass} labelClass
   * @param {number} n
   */
  _row({ slot, label }, n) {
    const swatch = el("span", { class: "swatch" });
    swatch.style.setProperty("--colour", /** @type {Colouring} */ (this._colouring).palette()[slot]);
    const emphasise = () => this._events.onEmphasis(slot);
    const calm = () => this._events.onEmphasis(null);
    const button = el(
      "button",
      {
        type: "button",
        class: "entry",
        "aria-pressed": String(!this._hidden.has(slot)),
        title: label,
        onclick: () => this._toggle(slot),
        onpointerenter: emphasise,
        onpointerleave: calm,
        onfocus: emphasise,
        onblur: calm,
      },
      swatch,
      el("span", { class: "one-line" }, label),
      el("span", { class: "amount" }, count(n)),
    );
    button.dataset.slot = String(slot);
    return el("li", {}, button);
  }

  /** @param {number} slot */
  _toggle(slot) {
    const hidden = new Set(this._hidden);
    if (!hidden.delete(slot)) hidden.add(slot);
    this._hide([...hidden]);
  }

  /** @param {number[]} slots */
  _hide(slots) {
    this._hidden = new Set(slots);
    for (const button of /** @type {NodeListOf<HTMLElement>} */ (this._root.querySelectorAll(".entry"))) {
      button.setAttribute("aria-pressed", String(!this._hidden.has(Number(button.dataset.slot))));
    }
    this._events.onEmphasis(null);
    this._events.onHidden(this._hidden);
  }
}
