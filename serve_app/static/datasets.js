/**
 * Choose a dataset or register a folder.
 * @module
 */

import { placed } from "./address.js";
import * as api from "./api.js";
import { FolderChooser } from "./chooser.js";
import { byId, el, fill } from "./dom.js";
import { plural } from "./words.js";

/** @typedef {api.Dataset} Dataset */

export class Datasets {
  /** @param {(dataset: Dataset | null) => void} onChoice */
  constructor(onChoice) {
    this._onChoice = onChoice;
    /** @type {Dataset[]} */
    this._all = [];
    /** @type {Dataset | null} */
    this.current = null;
    this._choice = /** @type {HTMLSelectElement} */ (byId("dataset-choice"));
    this._rescan = /** @type {HTMLButtonElement} */ (byId("rescan"));
    this._dialog = /** @type {HTMLDialogElement} */ (byId("register"));
    this._form = /** @type {HTMLFormElement} */ (byId("register-form"));
    this._choice.addEventListener("change", () => this.choose(this._choice.value));
    this._rescan.addEventListener("click", () => this._look());
    this._chooser = new FolderChooser(byId("register-folders"), byId("register-browse"), (path) => this._take(path));
    byId("register-open").addEventListener("click", () => this.openForm());
    this._form.querySelector("[data-close]")?.addEventListener("click", () => this._dialog.close());
    this._form.addEventListener("submit", (event) => this._register(event));
  }

  /** Read the list anew and keep the choice, or take the one the address names, or the newest. */
  async load() {
    this._all = await api.listDatasets();
    const wanted = this.current?.id ?? placed().dataset;
    const options = this._all.map(({ id, name }) => el("option", { value: id }, name));
    fill(this._choice, ...(options.length ? options : [el("option", { value: "" }, "None yet")]));
    this._choice.disabled = !options.length;
    const found = this._all.find(({ id }) => id === wanted) ?? this._all.at(-1);
    this.choose(found?.id ?? "");
  }

  /** @param {string} id */
  choose(id) {
    this.current = this._all.find((dataset) => dataset.id === id) ?? null;
    this._choice.value = id;
    this._rescan.disabled = !this.current;
    this._say(this.current ? plural(this.current.sample_count, "image") : "A dataset is a folder of images.");
    this._tell(this.current?.notices ?? []);
    this._onChoice(this.current);
  }

  /** @param {string[]} notices what the listing left out or set aside */
  _tell(notices) {
    const box = byId("dataset-notices");
    box.hidden = !notices.length;
    const lines = notices.map((notice) => el("li", { class: "breaks" }, notice));
    fill(box, el("summary", {}, `${plural(notices.length, "notice")} of the listing`), el("ul", {}, ...lines));
  }

  /** Ask for a folder. */
  openForm() {
    this._complain("");
    this._chooser.close();
    this._dialog.showModal();
  }

  /** @param {string} path of a folder; its name is the dataset's where there is none yet */
  _take(path) {
    const field = (/** @type {string} */ name) => /** @type {HTMLInputElement} */ (this._form.elements.namedItem(name));
    const last = (/** @type {string} */ text) => text.slice(text.lastIndexOf("/") + 1);
    const isOurs = !field("name").value || field("name").value === last(field("root").value);
    if (isOurs) field("name").value = last(path);
    field("root").value = path;
  }

  async _look() {
    const dataset = /** @type {Dataset} */ (this.current);
    this._rescan.disabled = true;
    this._say("Looking for changes…");
    try {
      const changes = await api.rescan(dataset.id, (n) => this._say(`Looking for changes: ${plural(n, "file")}…`));
      await this.load();
      this._say(changes === "nothing changed" ? "Nothing has changed." : changes);
    } catch (error) {
      this._say(/** @type {Error} */ (error).message);
    }
    this._rescan.disabled = false;
  }

  /** @param {SubmitEvent} event */
  async _register(event) {
    event.preventDefault();
    const fields = new FormData(this._form);
    const text = (/** @type {string} */ name) => String(fields.get(name) ?? "").trim();
    const submit = /** @type {HTMLButtonElement} */ (this._form.querySelector("[type=submit]"));
    submit.disabled = true;
    submit.textContent = "Adding…";
    this._complain("");
    try {
      const annotations = text("annotations");
      const wanted = { name: text("name"), root: text("root"), format: "auto", ...(annotations && { annotations }) };
      const dataset = await api.registerDataset(wanted, (n) => {
        submit.textContent = `Adding ${plural(n, "file")}…`;
      });
      this.current = dataset;
      await this.load();
      this._form.reset();
      this._dialog.close();
    } catch (error) {
      this._complain(/** @type {Error} */ (error).message);
    } finally {
      submit.disabled = false;
      submit.textContent = "Add";
    }
  }

  /** @param {string} message */
  _complain(message) {
    byId("register-error").textContent = message;
  }

  /** @param {string} note */
  _say(note) {
    const about = byId("dataset-about");
    about.textContent = note;
    about.title = this.current ? `${this.current.root} · ${note}` : note;
  }
}
