/**
 * Tags on a set of images: put one on, take one off, undo.
 * @module
 */

import * as api from "./api.js";
import { literal } from "./completion.js";
import { el, fill } from "./dom.js";
import { plural } from "./words.js";

/** @typedef {import("./api.js").Item} Item */
/** @typedef {"POST" | "DELETE"} Method */
/** @typedef {{datasetId: string, tag: string, ids: string[], method: Method}} Step what was done to which images */

const AT_ONCE = 10_000;
/** A request takes 4,000 ids, and a body has 1 MiB. */
const CHANGED_AT_ONCE = 2_000;
const RECENT = 9;

/** The steps of this tab that can be undone, the newest last. @type {Step[]} */
const steps = [];
/** Tags used in this tab, the newest first; keys 1 to 9 use them again. @type {string[]} */
const recent = [];

/** Where images are tagged: a box for the tag, and what was done last. */
export class Tagging {
  /**
   * @param {string} datasetId
   * @param {() => Item[]} chosen the images to tag
   * @param {() => void} onChange after tags changed
   * @param {() => void} [onUndo] in place of `undo`, which it calls
   */
  constructor(datasetId, chosen, onChange, onUndo = () => this.undo()) {
    this._id = datasetId;
    this._onUndo = onUndo;
    this._chosen = chosen;
    this._onChange = onChange;
    this._tag = el("input", { name: "tag", placeholder: "tag", "aria-label": "Tag", maxlength: 100, autocomplete: "off", list: "tags" });
    this._said = el("p", { class: "note line", role: "status" });
    this._known = el("datalist", { id: "tags" });
    const put = el("button", { class: "button", type: "submit", title: "Put the tag on (key T, then Enter)" }, "Tag");
    const take = el("button", { class: "button quiet", type: "button", onclick: () => this.apply(this._typed, "DELETE") }, "Untag");
    this._tag.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation(); // it would close the collection
      this._tag.blur();
    });
    const form = el("form", { class: "row tagging" }, this._tag, put, take, this._known);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.apply(this._typed, "POST");
    });
    this._suggest();
    /** @type {HTMLElement[]} */
    this.elements = [form, this._said];
  }

  get _typed() {
    return this._tag.value.trim();
  }

  /** Write a tag. */
  focus() {
    this._tag.focus();
  }

  /**
   * Put a tag on the chosen images, or take it off.
   * @param {string} tag
   * @param {Method} method
   * @returns {Promise<Step | null>} what was done; null when it did not work
   */
  async apply(tag, method) {
    if (!tag) {
      this.focus();
      return null;
    }
    const chosen = this._chosen().map(({ sample_id }) => sample_id); // now: the selection may change while we ask
    try {
      const had = await tagged(this._id, tag);
      const step = { datasetId: this._id, tag, ids: chosen.filter((id) => had.has(id) === (method === "DELETE")), method };
      const { ids } = step;
      await change(step);
      if (ids.length) steps.push(step);
      recent.splice(0, recent.length, ...[tag, ...recent.filter((other) => other !== tag)].slice(0, RECENT));
      this._tell(`${plural(ids.length, "image")} ${method === "POST" ? "tagged" : "untagged"} “${tag}”.`, ids.length > 0);
      return step;
    } catch (error) {
      this._tell(/** @type {Error} */ (error).message, false);
      return null;
    }
  }

  /**
   * Undo the newest step of this tab.
   * @returns {Promise<Step | null>} that step; null when there is none or it did not work
   */
  async undo() {
    const at = steps.findLastIndex(({ datasetId }) => datasetId === this._id);
    if (at < 0) {
      this._tell("There is nothing to undo.", false);
      return null;
    }
    const [step] = steps.splice(at, 1);
    try {
      await change({ ...step, method: step.method === "POST" ? "DELETE" : "POST" });
      this._tell(`“${step.tag}” is as it was on ${plural(step.ids.length, "image")}.`, false);
      return step;
    } catch (error) {
      steps.push(step);
      this._tell(/** @type {Error} */ (error).message, true);
      return null;
    }
  }

  /**
   * @param {string} key
   * @returns {boolean} whether it was a key for tags
   */
  key(key) {
    if (key === "t") this.focus();
    else if (key === "z") this.undo();
    else if (/^[1-9]$/.test(key) && recent[Number(key) - 1]) this.apply(recent[Number(key) - 1], "POST");
    else return false;
    return true;
  }

  /**
   * @param {string} text
   * @param {boolean} canUndo
   */
  _tell(text, canUndo) {
    const undo = canUndo && el("button", { class: "link", type: "button", title: "Key Z", onclick: this._onUndo }, "Undo");
    fill(this._said, text, canUndo && " ", undo);
    this._suggest();
    this._onChange();
  }

  async _suggest() {
    const tags = await api.listTags(this._id).catch(() => []);
    fill(this._known, ...tags.map(({ value }) => el("option", { value })));
  }
}

/**
 * @param {string} datasetId
 * @param {string} tag
 * @returns {Promise<Set<string>>} ids of the samples that have it
 */
async function tagged(datasetId, tag) {
  const had = new Set();
  /** @type {string | null} */
  let cursor = null;
  do {
    const page = await api.listSamples(datasetId, AT_ONCE, cursor, `tag = ${literal(tag)}`);
    for (const { id } of page.items) had.add(id);
    cursor = page.next_cursor;
  } while (cursor !== null);
  return had;
}

/** @param {Step} step */
async function change({ datasetId, tag, ids, method }) {
  for (let start = 0; start < ids.length; start += CHANGED_AT_ONCE) {
    await api.changeTag(datasetId, tag, { sample_ids: ids.slice(start, start + CHANGED_AT_ONCE) }, method);
  }
}
