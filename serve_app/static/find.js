/**
 * Questions about the whole dataset: twins, strangers, a sample that covers it, and images like a file or like words.
 * @module
 */

import { place, placed } from "./address.js";
import { byId, el, fill } from "./dom.js";
import { withGraph } from "./graph.js";
import { Handover } from "./handover.js";
import * as questions from "./questions.js";
import { plural } from "./words.js";

const SEARCH_RESULTS = 60;
const OUTLIERS = 60;
const DIVERSE = 60;
const FIRST_THRESHOLD = 0.95;

/** @typedef {import("./panel.js").Panel} Panel */
/** @typedef {import("./api.js").Dataset} Dataset */

export class Find {
  /**
   * @param {HTMLElement} root
   * @param {Panel} panel
   * @param {() => string} where the filter of the moment, empty for none
   */
  constructor(root, panel, where) {
    this._panel = panel;
    this._where = where;
    /** @type {Dataset | null} */
    this._dataset = null;
    this._threshold = FIRST_THRESHOLD;
    this._file = /** @type {HTMLInputElement} */ (byId("search-file"));
    this._buttons = [
      question("Near-duplicates", "copies, crops", () => this._duplicates()),
      question("Outliers", "what does not fit", () => this._outliers()),
      question("Diverse sample", "covers it all", () => this._diverse()),
    ];
    this._handover = new Handover(where);
    fill(root, ...this._buttons, ...this._handover.elements);
    this._file.addEventListener("change", () => {
      const [file] = this._file.files ?? [];
      if (file) this.byImage(file);
      this._file.value = "";
    });
    byId("search-open").addEventListener("click", () => this._file.click());
    this._words = /** @type {HTMLInputElement} */ (byId("search-words"));
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.byWords(this._words.value.trim());
    });
    this.enable(null, false);
  }

  /**
   * @param {Dataset | null} dataset
   * @param {boolean} hasVectors
   */
  enable(dataset, hasVectors) {
    if (dataset?.id !== this._dataset?.id) this._words.value = placed().words;
    this._dataset = dataset;
    const search = /** @type {HTMLButtonElement} */ (byId("search-open"));
    this._handover.enable(dataset, hasVectors);
    for (const button of [...this._buttons, search, this._words]) button.disabled = !hasVectors;
  }

  /** Ask again for the words of the address, which a colleague has sent. */
  again() {
    const { words } = placed();
    if (words) this.byWords(words);
  }

  /** @param {string} words empty to look for nothing */
  byWords(words) {
    const dataset = this._dataset;
    place({ words });
    if (!dataset || !words) return;
    this._panel.find(`“${words}”`, async (signal) => {
      const { items, notices } = await questions.searchByText(dataset.id, words, SEARCH_RESULTS, this._where(), signal);
      return {
        title: `“${words}”`,
        note: ["Best first; the number is the cosine similarity.", ...notices].join(" "),
        items,
        fileName: `${dataset.name} ${words}`,
        empty: "The dataset has no vectors to compare with.",
      };
    });
  }

  /** @param {File} file */
  byImage(file) {
    const dataset = this._dataset;
    if (!dataset) return;
    const preview = el("img", { class: "query", alt: "The image searched for", src: URL.createObjectURL(file) });
    preview.addEventListener("load", () => URL.revokeObjectURL(preview.src), { once: true });
    preview.addEventListener("error", () => preview.remove(), { once: true });
    this._ask(`Like ${file.name}`, async () => {
      const { items } = await questions.searchByImage(dataset.id, file, SEARCH_RESULTS, this._where());
      return {
        title: `Like ${file.name}`,
        note: "Best first; the number is the cosine similarity.",
        items,
        fileName: `${dataset.name} like ${file.name}`,
        controls: preview,
        empty: "The dataset has no vectors to compare with.",
      };
    });
  }

  _duplicates() {
    const dataset = /** @type {Dataset} */ (this._dataset);
    const controls = this._slider();
    /** @type {Parameters<Panel["find"]>[1]} */
    const find = async (signal, say) => {
      const ask = () => questions.duplicates(dataset.id, this._threshold, this._where(), signal);
      const { groups, incomplete } = await withGraph(dataset.id, ask, signal, say);
      const items = groups.flatMap((group, i) => group.map((item) => ({ ...item, group: i + 1 })));
      return {
        title: plural(groups.length, "group of near-duplicates", "groups of near-duplicates"),
        note: [`${plural(items.length, "image")} in groups.`, incomplete && `${plural(incomplete, "image")} may have more.`].filter(Boolean).join(" "),
        items,
        groups,
        fileName: `${dataset.name} near-duplicates`,
        controls,
        empty: "No two images are that much alike. Lower the threshold to see the closest ones.",
      };
    };
    this._ask("Near-duplicates", find, controls);
  }

  /**
   * Ask for something else than words, which then leave the address.
   * @param {Parameters<Panel["find"]>} question
   */
  _ask(...question) {
    place({ words: "" });
    this._panel.find(...question);
  }

  /** @returns {HTMLElement} the threshold, which starts the question anew */
  _slider() {
    const value = el("output", {}, this._threshold.toFixed(3));
    const slider = el("input", { type: "range", min: "0.8", max: "1", step: "0.005", value: this._threshold });
    slider.addEventListener("input", () => (value.textContent = Number(slider.value).toFixed(3)));
    slider.addEventListener("change", () => {
      this._threshold = Number(slider.value);
      this._duplicates();
    });
    return el("label", { class: "slider" }, "At least this similar", slider, value);
  }

  _outliers() {
    const dataset = /** @type {Dataset} */ (this._dataset);
    this._ask("Outliers", async (signal, say) => {
      const ask = () => questions.outliers(dataset.id, OUTLIERS, this._where(), signal);
      const { items } = await withGraph(dataset.id, ask, signal, say);
      return {
        title: "Outliers",
        note: "The images least like their ten nearest neighbours; the number is that mean similarity.",
        items,
        fileName: `${dataset.name} outliers`,
        empty: "There are no images to compare.",
      };
    });
  }

  _diverse() {
    const dataset = /** @type {Dataset} */ (this._dataset);
    this._ask("Diverse sample", async (signal) => {
      const { items } = await questions.diverse(dataset.id, DIVERSE, this._where(), signal);
      return {
        title: "Diverse sample",
        note: "Chosen so that every image is near one of them: a start for labelling, in this order.",
        items: items.map(({ score, ...item }) => item),
        fileName: `${dataset.name} diverse`,
        empty: "There are no images to choose from.",
      };
    });
  }
}

/**
 * @param {string} title
 * @param {string} about
 * @param {() => void} ask
 */
const question = (title, about, ask) =>
  el("button", { class: "question", type: "button", onclick: ask }, el("strong", {}, title), el("span", {}, about));

/**
 * Take images dropped anywhere on the page.
 * @param {HTMLElement} curtain shown while a file is over the page
 * @param {(file: File) => void} onFile
 */
export function acceptDrops(curtain, onFile) {
  const hasFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files") ?? false;
  let depth = 0;
  const show = (/** @type {number} */ now) => {
    depth = now;
    curtain.hidden = depth <= 0;
  };
  addEventListener("dragenter", (event) => hasFiles(event) && show(depth + 1));
  addEventListener("dragleave", (event) => hasFiles(event) && show(depth - 1));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    show(0);
    const file = event.dataTransfer?.files[0];
    if (!file) return;
    event.preventDefault();
    onFile(file);
  });
}
