/**
 * Findings as queues that are worked through: one after the other, with the keyboard.
 * @module
 */

import { acts } from "./acts.js";
import { place, placed } from "./address.js";
import { save } from "./clipboard.js";
import { compare } from "./compare.js";
import { literal } from "./completion.js";
import { el, fill, released } from "./dom.js";
import { Evidence } from "./evidence.js";
import { withGraph } from "./graph.js";
import { control, optionsAt, parameters, unusual } from "./options.js";
import * as questions from "./questions.js";
import { namesClusters, namesTags, QUEUES } from "./queues.js";
import { Tagging } from "./tagging.js";
import { request } from "./wire.js";
import { count } from "./words.js";

/** @typedef {import("./api.js").Item} Item */
/** @typedef {import("./queues.js").Finding} Finding */
/** @typedef {import("./queues.js").Options} Options */
/** @typedef {import("./tagging.js").Step} Step */

export class Findings {
  /**
   * @param {HTMLElement} root
   * @param {{onOpen: (item: Item) => void, onFilter: (expression: string) => void, onTagged: () => void,
   *   onClusters: (medoids: Item[]) => void}} events
   * @param {import("./filter.js").FilterBar} filter with the columns of the dataset
   */
  constructor(root, events, filter) {
    this._root = root;
    this._events = events;
    this._filter = filter;
    this._datasetId = "";
    this._name = "";
    this._asked = "";
    /** @type {Options} */
    this._options = optionsAt(placed());
    /** @type {Finding[]} */
    this._found = [];
    this._at = 0;
    /** @type {Map<string, Step | "skipped">} what was decided, by key */
    this._decided = new Map();
    /** @type {Map<string, Map<string, Step | "skipped">>} the decisions by question, as long as the vectors stay */
    this._decisions = new Map();
    this._isAccepting = false;
    /** @type {Evidence | null} of the finding that is shown */
    this._evidence = null;
    /** @type {Tagging | null} */
    this._tagging = null;
    this._loading = new AbortController();
    this._note = el("p", { class: "note", role: "status" });
    this._progress = el("strong", { class: "position", role: "status" });
    this._bar = el("progress", { value: "0", "aria-label": "Decided" });
    this._choices = el("div", { class: "row" });
    this._framed = "";
    this._stand = el("div", { class: "stand" });
    this._acts = el("div", { class: "acts" });
    this._plan = el("button", { class: "link", type: "button", onclick: () => this._save() }, "Save the plan (CSV)");
  }

  /** @returns {boolean} */
  get isShown() {
    return !this._root.hidden;
  }

  /** @param {string} datasetId another one, or the same with other vectors; empty for none */
  choose(datasetId) {
    this._loading.abort();
    this._datasetId = datasetId;
    this._asked = this._framed = "";
    this._options = optionsAt(placed());
    this._decisions.clear();
    this._events.onClusters([]);
    fill(this._root, el("p", { class: "note" }, "Findings come from the vectors of the images."));
    if (this.isShown && placed().finding) this.show();
  }

  /** Show the queue that the address names, or the first, where it was left. */
  show() {
    const { finding } = placed();
    this._open(finding in QUEUES ? finding : this._name || "duplicates");
  }

  /** There are other columns to choose from; a field that somebody writes in stays as it is. */
  renew() {
    if (!this._framed || this._choices.contains(document.activeElement)) return;
    const controls = QUEUES[this._name].options.map((name) => control(name, this._options, this._filter.columns, (options) => this._change(options)));
    fill(this._choices, ...controls);
  }

  /** @param {Partial<Options>} options */
  async _change(options) {
    this._options = { ...this._options, ...options };
    await released();
    this.refresh();
  }

  /** Another view is shown: the address does not name a queue any more. */
  leave() {
    place({ finding: "", item: "", threshold: "", keep: "", column: "", phrases: "" });
  }

  /** Ask anew where the filter is another one. */
  refresh() {
    if (this.isShown && this._name && this._path() !== this._asked) this._open(this._name);
  }

  /** Tags were changed elsewhere, or taken back: ask anew where the filter names them. */
  tagsChanged() {
    if (!namesTags(this._where())) return;
    this._loading.abort();
    this._asked = "";
    this.refresh();
  }

  /** @param {string} name of a queue */
  _open(name) {
    const isOther = Boolean(this._name) && name !== this._name;
    place({ finding: name, ...(isOther && { item: "" }), ...unusual(this._options) });
    this._name = name;
    if (this._path() === this._asked) this._present();
    else this._ask();
  }

  async _ask() {
    this._loading.abort();
    this._loading = new AbortController();
    const { signal } = this._loading;
    const id = this._datasetId;
    this._asked = this._path();
    if (this._framed !== this._name) this._build();
    this._clear("Looking…");
    if (!id) return this._say("Choose a dataset, or add a folder of images.");
    try {
      const ask = () => questions.findings(this._asked, signal);
      const answer = await withGraph(id, ask, signal, (text) => !signal.aborted && this._say(text));
      if (!signal.aborted) this._take(answer);
    } catch (error) {
      if (signal.aborted) return;
      this._asked = "";
      this._say(/** @type {Error} */ (error).message, true);
    }
  }

  /** @returns {string} the filter of the queue, empty for none */
  _where() {
    return this._name === "clusters" ? this._filter.whereWithout(namesClusters) : this._filter.where;
  }

  /**
   * @param {Record<string, string>} [more] parameters
   * @returns {string} of the question
   */
  _path(more = {}) {
    const { options, fixed } = QUEUES[this._name];
    const chosen = options.flatMap((name) => parameters(this._options, name));
    return questions.findingsPath(this._datasetId, this._name, [...chosen, ...Object.entries({ ...fixed, ...more })], this._where());
  }

  /** @param {any} answer */
  _take(answer) {
    const queue = QUEUES[this._name];
    this._found = queue.read(answer);
    this._decided = this._decisions.get(this._asked) ?? new Map();
    this._decisions.set(this._asked, this._decided);
    const named = this._found.findIndex(({ key }) => key === placed().item);
    this._at = named >= 0 ? named : Math.max(0, this._found.findIndex(({ key }) => !this._decided.has(key)));
    this._say(this._found.length ? `${queue.about} ${queue.note(answer)}` : queue.empty);
    this._note.title = answer.method ?? "";
    if (this._name === "clusters") this._events.onClusters(this._found.map(({ sides }) => sides[0].item));
    this._acts.hidden = this._plan.hidden = !this._found.length;
    this._present();
  }

  /** The frame of a queue, without its findings; it stays while the queue is asked anew, with the focus that is in it. */
  _build() {
    this._framed = this._name;
    const { tag } = QUEUES[this._name];
    this._tagging = tag ? new Tagging(this._datasetId, () => this._evidence?.chosen ?? [], this._events.onTagged, () => this._undo()) : null;
    const names = Object.entries(QUEUES).map(([name, { title }]) =>
      el("button", { type: "button", "aria-pressed": String(name === this._name), onclick: () => this._open(name) }, title),
    );
    const tabs = el("div", { class: "segments", role: "group", "aria-label": "Queue" }, ...names);
    fill(this._acts, el("div", { class: "row deciding" }, ...this._actions()), ...(this._tagging?.elements ?? []));
    const heading = el("div", { class: "row heading" }, this._progress, this._bar, this._plan);
    fill(this._root, el("div", { class: "row bar" }, tabs, this._choices), this._note, heading, this._stand, this._acts);
    this.renew();
  }

  /** @param {string} note in place of the findings */
  _clear(note) {
    this._found = [];
    this._evidence = null;
    this._acts.hidden = !this._acts.contains(document.activeElement);
    this._plan.hidden = true;
    fill(this._stand);
    this._say(note);
    this._count();
  }

  /** @returns {HTMLElement[]} */
  _actions() {
    const { tag } = QUEUES[this._name];
    return acts(tag, {
      onPrevious: () => this._go(-1),
      onAccept: () => this._accept(),
      onSkip: () => this._skip(),
      onNext: () => this._go(1),
      onLeave: () => {
        this._asked = "";
        this._filter.add(`tag <> ${literal(tag)}`);
      },
    });
  }

  _present() {
    const finding = this._found[this._at];
    this._count();
    if (!finding) return;
    place({ item: finding.key });
    this._evidence = new Evidence(this._datasetId, finding, { onOpen: this._events.onOpen, isTagged: Boolean(QUEUES[this._name].tag), where: () => this._where() });
    fill(this._stand, ...this._evidence.elements);
  }

  /** @returns {number} how many of the findings are decided */
  get _done() {
    return this._found.filter(({ key }) => this._decided.has(key)).length;
  }

  _count() {
    const n = this._found.length;
    this._progress.textContent = n ? `${count(this._at + 1)} of ${count(n)}` : "";
    this._bar.hidden = !n;
    this._bar.max = n || 1;
    this._bar.value = this._done;
  }

  /** @param {number} step */
  _go(step) {
    this._at = Math.max(0, Math.min(this._found.length - 1, this._at + step));
    this._present();
  }

  _skip() {
    this._decide("skipped");
  }

  /** @param {Step | "skipped"} what about the present finding; then the next one is shown */
  _decide(what) {
    if (!this._found.length) return;
    this._decided.set(this._found[this._at].key, what);
    if (this._at < this._found.length - 1) return this._go(1);
    this._count();
    this._say(`That was the last one; ${count(this._done)} of ${count(this._found.length)} are decided.`);
  }

  /** Do what the finding suggests. */
  async _accept() {
    if (this._isAccepting) return;
    this._isAccepting = true;
    await this._apply().finally(() => (this._isAccepting = false));
  }

  async _apply() {
    const [finding, name] = [this._found[this._at], this._name];
    if (!finding) return;
    if (finding.filter) return this._keepOnly(finding.filter);
    const step = await this._tagging?.apply(QUEUES[name].tag, "POST");
    if (step && name === this._name && finding === this._found[this._at]) this._decide(step);
  }

  /** @param {string} filter over the column of clusters, which is made now */
  async _keepOnly(filter) {
    try {
      await questions.putClusters(this._datasetId, this._where());
      this._events.onTagged();
      this._events.onFilter(filter);
    } catch (error) {
      this._say(/** @type {Error} */ (error).message, true);
    }
  }

  /** Undo the last tag, and go back to the finding that it was about. */
  async _undo() {
    const step = await this._tagging?.undo();
    if (!step) return;
    const key = this._reopen(step);
    const at = this._found.findIndex((one) => one.key === key);
    if (at >= 0) this._go(at - this._at);
    else if (key && namesTags(this._where())) place({ item: key });
    this.tagsChanged();
  }

  /**
   * @param {Step} step
   * @returns {string} the key of the finding that it decided, which is open again; empty for none
   */
  _reopen(step) {
    for (const decided of this._decisions.values()) {
      const key = [...decided.keys()].find((one) => decided.get(one) === step) ?? "";
      if (decided.delete(key)) return key;
    }
    return "";
  }

  /** A link sends no key: the file passes through the page. */
  async _save() {
    try {
      save(await (await request(this._path({ format: "csv" }))).blob(), `${this._name}.csv`);
    } catch (error) {
      this._say(/** @type {Error} */ (error).message, true);
    }
  }

  /**
   * @param {string} text
   * @param {boolean} [isBad]
   */
  _say(text, isBad = false) {
    this._note.textContent = text;
    this._note.title = "";
    this._note.classList.toggle("bad", isBad);
  }

  /**
   * @param {string} key
   * @returns {boolean} whether it meant something here
   */
  key(key) {
    if (!this.isShown || !this._found.length) return false;
    const [first, second] = this._found[this._at].sides;
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowRight: () => this._go(1),
      ArrowLeft: () => this._go(-1),
      j: () => this._go(1),
      k: () => this._go(-1),
      a: () => this._accept(),
      s: () => this._skip(),
      z: () => this._undo(),
      c: () => second && compare(this._datasetId, first.item, second.item),
    };
    if (actions[key]) actions[key]();
    else return this._tagging?.key(key) ?? false;
    return true;
  }
}
