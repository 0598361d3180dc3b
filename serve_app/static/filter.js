/**
 * The filter bar: expressions that all hold, each a chip, and a box to write the next one with completion.
 * @module
 */

import { suggestions } from "./completion.js";
import { byId, el, fill } from "./dom.js";

/** @typedef {import("./api.js").Column} Column */
/** @typedef {import("./completion.js").Suggestions} Suggestions */

const CHIP_LETTERS = 40;

export class FilterBar {
  /** @param {{onChange: () => void}} events `onChange` after a person added or removed an expression */
  constructor(events) {
    this._events = events;
    /** @type {string[]} */
    this.expressions = [];
    /** @type {Column[]} */
    this.columns = [];
    this._told = "";
    this._chips = byId("filter-chips");
    this._input = /** @type {HTMLInputElement} */ (byId("filter"));
    this._problem = byId("filter-problem");
    this._list = new SuggestionList(this._input, byId("filter-suggestions"));
    this._input.addEventListener("input", () => this._typed());
    this._input.addEventListener("focus", () => this._typed());
    this._input.addEventListener("blur", () => this._list.close());
    this._input.addEventListener("keydown", (event) => this._key(event));
  }

  /** @returns {string} what all expressions say together, empty for none */
  get where() {
    return together(this.expressions);
  }

  /**
   * @param {(expression: string) => boolean} isLeftOut
   * @returns {string} what the other expressions say together, empty for none
   */
  whereWithout(isLeftOut) {
    return together(this.expressions.filter((one) => !isLeftOut(one)));
  }

  /** @param {string[]} expressions taken as they are, without asking for an answer */
  show(expressions) {
    this.expressions = expressions;
    this._input.value = "";
    this._list.close();
    this.complain("");
    this._render();
  }

  /** @param {boolean} isPossible */
  enable(isPossible) {
    this._input.disabled = !isPossible;
  }

  /** @param {string} expression asked anew where it is there already: the images may have changed */
  add(expression) {
    this._change([...new Set([...this.expressions, expression])]);
  }

  /**
   * @param {(expression: string) => boolean} isOld
   * @param {string} expression in place of the old ones
   */
  replace(isOld, expression) {
    this._change([...this.expressions.filter((one) => !isOld(one)), expression]);
  }

  /** Remove the regions, which were drawn on another map, and say so until a person changes the filter. */
  dropRegions() {
    const left = this.expressions.filter((one) => !one.includes("inside("));
    if (left.length === this.expressions.length) return;
    this._change(left);
    this.tell("The filter by a region is gone: it was drawn on another map.");
  }

  /** @param {string} text that stays until a person changes the filter, empty for none */
  tell(text) {
    this._told = text;
    this.complain("");
  }

  /** Write in the box. */
  focus() {
    this._input.focus();
  }

  /** @param {string} message empty when all is well */
  complain(message) {
    this._problem.textContent = message || this._told;
    this._input.setAttribute("aria-invalid", String(Boolean(message)));
  }

  /**
   * Say what is wrong with the newest expression, which goes back into the box.
   * @param {string} message
   * @param {number} [position] of the mistake in `where`
   */
  refuse(message, position) {
    this.complain(message);
    const newest = this.expressions.at(-1);
    if (newest === undefined) return;
    const start = this.where.length - newest.length - Number(this.expressions.length > 1);
    this.expressions = this.expressions.slice(0, -1);
    this._input.value = newest;
    this._render();
    if (position === undefined) return;
    const at = Math.max(0, Math.min(position - start, newest.length));
    this._input.focus();
    this._input.setSelectionRange(at, newest.length);
    this._list.close();
  }

  /** @param {string[]} expressions */
  _change(expressions) {
    this._told = "";
    this.show(expressions);
    this._events.onChange();
  }

  _typed() {
    if (!this._input.value) this.complain("");
    const caret = this._input.selectionStart ?? this._input.value.length;
    this._list.open(suggestions(this._input.value, caret, this.columns));
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    if (this._list.key(event)) return;
    const text = this._input.value.trim();
    if (event.key === "Enter" && text) this.add(text);
    else if (event.key === "Backspace" && !this._input.value && this.expressions.length) this._edit(this.expressions.length - 1);
    else if (event.key === "Escape") this._input.blur();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {number} place of an expression that goes back into the box */
  _edit(place) {
    const expression = this.expressions[place];
    this._change(this.expressions.filter((_, other) => other !== place));
    this._input.value = expression;
    this._input.focus();
  }

  _render() {
    fill(this._chips, ...this.expressions.map((expression, place) => this._chip(expression, place)));
  }

  /**
   * @param {string} expression
   * @param {number} place
   */
  _chip(expression, place) {
    const label = /^inside\([^()]*\)$/.test(expression) ? "inside the lasso" : expression;
    const short = label.length > CHIP_LETTERS ? `${label.slice(0, CHIP_LETTERS)}…` : label;
    const remove = () => this._change(this.expressions.filter((_, other) => other !== place));
    return el(
      "li",
      { class: "chip" },
      el("button", { type: "button", title: expression, onclick: () => this._edit(place) }, short),
      el("button", { type: "button", "aria-label": `Remove the filter ${short}`, onclick: remove }, "×"),
    );
  }
}

/**
 * @param {string[]} expressions
 * @returns {string} that holds where all of them hold, empty for none
 */
const together = (expressions) => (expressions.length > 1 ? expressions.map((one) => `(${one})`).join(" AND ") : (expressions[0] ?? ""));

/** What may be written next, below the box; keys move in it while the box keeps the focus. */
class SuggestionList {
  /**
   * @param {HTMLInputElement} input
   * @param {HTMLElement} root
   */
  constructor(input, root) {
    this._input = input;
    this._root = root;
    /** @type {Suggestions} */
    this._shown = { from: 0, items: [] };
    this._chosen = -1;
  }

  /** @param {Suggestions} shown */
  open(shown) {
    this._shown = shown;
    this._chosen = -1;
    this._render();
  }

  close() {
    this.open({ from: 0, items: [] });
  }

  /**
   * @param {KeyboardEvent} event
   * @returns {boolean} whether the list took the key
   */
  key(event) {
    const { from, items } = this._shown;
    if (!items.length) return false;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const step = event.key === "ArrowDown" ? 1 : -1;
      this._chosen = (this._chosen + step + items.length + Number(this._chosen < 0 && step < 0)) % items.length;
      this._render();
    } else if ((event.key === "Enter" || event.key === "Tab") && this._chosen >= 0) this._take(this._chosen);
    else if (event.key === "Tab" && !event.shiftKey && from < (this._input.selectionStart ?? 0)) this._take(0);
    else if (event.key === "Escape") this.close();
    else return false;
    event.preventDefault();
    event.stopPropagation();
    return true;
  }

  /** @param {number} place */
  _take(place) {
    const { from, items } = this._shown;
    const caret = this._input.selectionStart ?? this._input.value.length;
    const end = /['(]$/.test(items[place].text) && !/^'.*'$/.test(items[place].text) ? "" : " ";
    this._input.setRangeText(items[place].text + end, from, caret, "end");
    this._input.dispatchEvent(new Event("input"));
  }

  _render() {
    const { items } = this._shown;
    const option = (/** @type {import("./completion.js").Suggestion} */ { text, note }, /** @type {number} */ place) =>
      el(
        "li",
        {
          id: `filter-option-${place}`,
          role: "option",
          "aria-selected": String(place === this._chosen),
          onpointerdown: (/** @type {Event} */ event) => {
            event.preventDefault();
            this._take(place);
          },
        },
        el("span", { class: "one-line" }, text),
        el("span", { class: "note" }, note),
      );
    fill(this._root, ...items.map(option));
    this._root.hidden = !items.length;
    this._input.setAttribute("aria-expanded", String(items.length > 0));
    if (this._chosen >= 0) this._input.setAttribute("aria-activedescendant", `filter-option-${this._chosen}`);
    else this._input.removeAttribute("aria-activedescendant");
  }
}
