/**
 * Labels with their colours: click to hide, point to bring out.
 * @module
 */

import { el, fill } from "./dom.js";
import { colours } from "./palette.js";
import { count } from "./words.js";

/** @typedef {import("./points.js").LabelClass} LabelClass */

export class Legend {
  /**
   * @param {HTMLElement} root
   * @param {{onHidden: (slots: Set<number>) => void, onEmphasis: (slot: number | null) => void}} events
   */
  constructor(root, events) {
    this._root = root;
    this._events = events;
    /** @type {LabelClass[]} */
    this._classes = [];
    /** @type {Set<number>} */
    this._hidden = new Set();
  }

  /** @param {LabelClass[]} classes */
  show(classes) {
    this._classes = classes;
    this._hidden = new Set();
    this._events.onHidden(this._hidden);
    this.render();
  }

  /** Draw anew: other classes or another theme. */
  render() {
    if (!this._classes.length) {
      fill(this._root, el("p", { class: "note" }, "They appear with the map."));
      return;
    }
    const all = el("button", { class: "link", type: "button", onclick: () => this._hide([]) }, "Show all");
    const none = el("button", { class: "link", type: "button", onclick: () => this._hide(this._classes.map(({ slot }) => slot)) }, "Hide all");
    fill(this._root, el("ul", {}, ...this._classes.map((one) => this._row(one))), el("div", { class: "row" }, all, none));
  }

  /** @param {LabelClass} labelClass */
  _row({ slot, label, count: n }) {
    const swatch = el("span", { class: "swatch" });
    swatch.style.setProperty("--colour", colours()[slot]);
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
