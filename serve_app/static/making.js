/**
 * The vectors and the map of a dataset in the making: the jobs that this tab starts, and what is said of any.
 * @module
 */

import * as api from "./api.js";
import { byId, el } from "./dom.js";
import { chooseSet } from "./sets.js";
import { Watch } from "./watch.js";
import { duration, plural } from "./words.js";
import { Work } from "./work.js";

/** @typedef {import("./watch.js").Progress} Progress */
/** @typedef {import("./watch.js").Kind} Kind */

/** The embed job this tab started: when it is complete the map is made without asking. */
const STARTED = "constellate.started";

export class Making {
  /**
   * @param {import("./stage.js").Stage} stage
   * @param {{onNews: () => Promise<void>, onBack: () => void, onTell: (elements: HTMLElement[]) => void}} events
   *   `onNews` when there may be other vectors or another map, `onBack` when the service answers again
   */
  constructor(stage, events) {
    this._stage = stage;
    this._events = events;
    /** @type {api.Dataset | null} */
    this._dataset = null;
    /** @type {api.Status | null} */
    this._status = null;
    /** @type {Progress | null} */
    this._ended = null;
    /** @type {Promise<unknown>} */
    this._starting = Promise.resolve();
    this._work = new Work(byId("work"), {
      onEmbed: (model) => this._embed(model),
      onReduce: (layout) => this._reduce({ ...layout, redraw: this._status?.has_reduction ?? false }),
      onCancel: () => this._try(() => api.cancel(this._id)),
      onSkipped: () => this._skipped(),
    });
    this._watch = new Watch({
      onProgress: (kind, state) => this._progress(kind, state),
      onEnd: (kind, state, isNews) => this._end(kind, state, isNews),
      onAway: (retryMs) => this._service(`The service does not answer. Trying again in ${duration(retryMs / 1000)}.`),
      onBack: () => this._back(),
    });
  }

  /** @returns {string} */
  get _id() {
    return this._dataset?.id ?? "";
  }

  /** @param {api.Dataset | null} dataset whose jobs are watched from now on */
  choose(dataset) {
    this._dataset = dataset;
    this._ended = null;
    this.complain("");
    this.show(null);
    this._watch.start(dataset?.id ?? null);
  }

  /** @param {api.Status | null} status of the set that is shown; null before it is known */
  show(status) {
    this._status = status;
    this._work.show(status, this._ended);
  }

  /** @param {string} message empty for none */
  complain(message) {
    this._work.complain(message);
  }

  /**
   * Say over the map what comes next.
   * @param {api.Status} status
   */
  sayWhatIsMissing(status) {
    if (!this._dataset?.sample_count) {
      this._stage.say({ title: "This dataset has no images", text: "Put some into its folder and press Rescan." });
    } else if (!status.has_embeddings) {
      const failed = this._ended?.status === "error" ? `The last attempt failed: ${this._ended.message}` : "";
      this._stage.say({
        title: "No vectors yet",
        text: failed || "The map, search and near-duplicates need a vector of each image.",
        action: failed ? "Try again" : "Compute vectors",
        onAction: () => this._embed(""),
      });
    } else {
      this._stage.say({
        title: "No map yet",
        text: "The vectors are there; laying them out in two dimensions takes seconds to minutes.",
        action: "Make the map",
        onAction: () => this._reduce(this._work.layout()),
      });
    }
  }

  /** @param {Parameters<typeof api.reduce>[1]} body */
  _reduce(body) {
    return this._try(() => api.reduce(this._id, body));
  }

  /** @param {string} model empty for that of the set that is shown, or the service's default where there is none */
  _embed(model) {
    return this._try(() => {
      const name = model || (this._status?.has_embeddings && this._status.model_name);
      const started = api.generate(this._id, name ? { model_name: name } : {});
      this._starting = started.then(({ job_id }) => sessionStorage.setItem(STARTED, job_id)).catch(() => undefined);
      return started;
    });
  }

  /**
   * Do something with the jobs, say what the service says against it, and look at once.
   * @param {() => Promise<unknown>} action
   */
  async _try(action) {
    this.complain("");
    try {
      await action();
    } catch (error) {
      this.show(this._status);
      this.complain(/** @type {Error} */ (error).message);
    }
    this._watch.nudge();
  }

  /**
   * @param {Kind} kind
   * @param {Progress} state
   */
  _progress(kind, state) {
    this._work.progress(kind, state);
    if (this._stage.points?.count) return;
    if (kind === "embed") this._stage.say({ title: "Computing vectors…", text: "The map appears when they are done. You may close this page: the job goes on." });
    else this._stage.say({ title: "Making the map…", text: "Similar images are being moved together." });
  }

  /**
   * @param {Kind} kind
   * @param {Progress} state
   * @param {boolean} isNews
   */
  async _end(kind, state, isNews) {
    if (kind === "embed") this._ended = state;
    await this._starting; // a short job may end before the answer to the request that began it
    const isOurs = state.job_id !== null && sessionStorage.getItem(STARTED) === state.job_id;
    if (isOurs) sessionStorage.removeItem(STARTED);
    if (isOurs && kind === "embed" && state.status === "complete") chooseSet(""); // the set that this job has made
    if (isOurs && state.status === "complete") await this._reduce(this._work.layout());
    if (!isNews && !isOurs) {
      if (this._status) this.show(this._status);
      return;
    }
    await this._events.onNews();
    if (kind === "reduce" && state.status === "error") this.complain(`The map could not be made: ${state.message}`);
  }

  async _skipped() {
    try {
      const { items } = await api.skipped(this._id);
      const row = (/** @type {api.Skip} */ skip) =>
        el("li", {}, el("strong", { class: "breaks" }, skip.file_name), el("span", { class: "note breaks" }, skip.detail || skip.reason));
      this._events.onTell([el("h2", { tabindex: "-1" }, `${plural(items.length, "image")} skipped`), el("ul", { class: "skips" }, ...items.map(row))]);
    } catch (error) {
      this.complain(/** @type {Error} */ (error).message);
    }
  }

  /** @param {string} message empty when all is well */
  _service(message) {
    byId("service").textContent = message;
  }

  _back() {
    this._service("");
    if (this._dataset && !this._status) this._events.onBack();
  }
}
