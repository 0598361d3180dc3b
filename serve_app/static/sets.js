/**
 * Which of a dataset's sets of vectors the page is about: a choice where there are several, kept in the address.
 * @module
 */

import { byId, el, fill } from "./dom.js";
import { count, modelName } from "./words.js";

/** @typedef {{model_name: string, embedding_count: number, job_id: string}} SetOfVectors */

/** What belongs to no set, below a dataset. */
const OF_NO_SET = /^(samples\/|sprites|columns|rescan|embeddings\/(generate|cancel|skipped|(reduce\/)?progress)|graph\/)/;

/** @returns {string} the model of the chosen set, empty for the one made last */
const chosen = () => new URL(location.href).searchParams.get("model") ?? "";

/** Whether the chosen set is that of a region, and nobody's choice. */
let isRegions = false;

/** @param {string} model empty for the set made last */
export function chooseSet(model) {
  isRegions = false;
  const address = new URL(location.href);
  if (model) address.searchParams.set("model", model);
  else address.searchParams.delete("model");
  history.replaceState(null, "", address);
}

/** @param {string} model whose map a region of the filter is of; it stays chosen as long as there is a region */
export function holdSet(model) {
  if (chosen()) return;
  chooseSet(model);
  isRegions = true;
}

/** @returns {boolean} whether a region had chosen the set; the one made last is chosen now */
export function freeSet() {
  const was = isRegions;
  if (was) chooseSet("");
  return was;
}

/**
 * @param {string} path below the page, already encoded
 * @returns {string} the path with the chosen set, where it asks about one
 */
export function ofChosenSet(path) {
  const tail = /^datasets\/[^/]+\/(.+)/.exec(path)?.[1];
  if (!chosen() || !tail || OF_NO_SET.test(tail)) return path;
  return `${path}${path.includes("?") ? "&" : "?"}model=${encodeURIComponent(chosen())}`;
}

export class SetChoice {
  /** @param {() => void} onChoice */
  constructor(onChoice) {
    const choose = () => {
      chooseSet(this._select.value);
      onChoice();
    };
    this._select = el("select", { "aria-label": "Vectors of", hidden: true, onchange: choose });
    byId("work").before(this._select);
  }

  /**
   * Offer a dataset's sets, if there are several.
   * @param {SetOfVectors[]} sets the one made last first
   * @returns {boolean} whether the chosen set is one of them; if not, the one made last is chosen now
   */
  show(sets) {
    const isThere = !chosen() || sets.some(({ model_name }) => model_name === chosen());
    if (!isThere) chooseSet("");
    const named = (/** @type {SetOfVectors} */ set) => `${modelName(set.model_name)} (${count(set.embedding_count)})`;
    fill(this._select, ...sets.map((set) => el("option", { value: set.model_name }, named(set))));
    this._select.value = chosen() || (sets[0]?.model_name ?? "");
    this._select.hidden = sets.length < 2;
    return isThere;
  }
}
