/**
 * Make vectors and a map: what there is, what runs, what went wrong, and the button for the next step.
 * @module
 */

import { el, fill } from "./dom.js";
import { count, duration, modelName, plural } from "./words.js";

const MODELS = ["dinov2-small", "dinov2-base", "dinov2-large", "dinov2-giant", "dinov3-base", "siglip2-base", "clip-base"];

/** @typedef {import("./watch.js").Progress} Progress */
/** @typedef {import("./watch.js").Kind} Kind */
/** @typedef {import("./api.js").Status} Status */
/** @typedef {{n_neighbors: number, min_dist: number}} Layout */

export class Work {
  /**
   * @param {HTMLElement} root
   * @param {{onEmbed: (model: string) => void, onReduce: (layout: Layout) => void, onCancel: () => void,
   *   onSkipped: () => void}} actions
   */
  constructor(root, actions) {
    this._actions = actions;
    this._title = el("strong", { class: "one-line" });
    this._percent = el("span", { class: "note" });
    this._bar = el("progress", { max: "1", value: "0", "aria-label": "Progress" });
    this._note = el("p", { class: "note line" });
    this._more = el("span", {});
    this._skipped = el("button", { class: "link", type: "button", onclick: actions.onSkipped });
    this._cancel = el("button", { class: "button", type: "button", onclick: actions.onCancel }, "Cancel");
    this._embed = el("button", { class: "button main", type: "button", onclick: () => this._start() });
    this._reduce = el("button", { class: "button", type: "button", onclick: () => actions.onReduce(this.layout()) });
    this._problem = el("p", { class: "problem", role: "alert" });
    this._model = el("input", { list: "models", placeholder: "the service's default", autocomplete: "off", spellcheck: "false" });
    this._neighbours = el("input", { type: "number", min: "2", max: "200", value: "15" });
    this._distance = el("input", { type: "number", min: "0", max: "0.99", step: "0.01", value: "0.1" });
    fill(
      root,
      el("p", { class: "ends" }, this._title, this._percent),
      this._bar,
      this._note,
      el("p", { class: "note ends line" }, this._more, this._skipped),
      el("div", { class: "row" }, this._cancel, this._embed, this._reduce),
      this._problem,
      this._options(),
    );
    this.show(null, null);
  }

  /** @returns {HTMLElement} */
  _options() {
    return el(
      "details",
      {},
      el("summary", {}, "Options"),
      el("label", {}, "Model", this._model),
      el("datalist", { id: "models" }, ...MODELS.map((value) => el("option", { value }))),
      el(
        "div",
        { class: "pair" },
        el("label", { title: "Images that shape a point's place: more shows the whole, fewer the details" }, "n_neighbors", this._neighbours),
        el("label", { title: "How close points may lie: smaller packs clusters" }, "min_dist", this._distance),
      ),
    );
  }

  /** @returns {Layout} */
  layout() {
    return { n_neighbors: this._neighbours.valueAsNumber || 15, min_dist: this._distance.valueAsNumber || 0 };
  }

  /** @param {string} message empty for none */
  complain(message) {
    this._problem.textContent = message;
  }

  /**
   * What there is while nothing runs.
   * @param {Status | null} status
   * @param {Progress | null} ended the newest embed job, if it is over
   */
  show(status, ended) {
    const hasVectors = Boolean(status?.has_embeddings);
    const skipped = ended?.status === "complete" ? ended.skipped : 0;
    const missing = status && hasVectors ? status.sample_count - status.embedding_count - skipped : 0;
    this._running(false);
    this._bar.value = hasVectors ? 1 : 0;
    this._percent.textContent = "";
    this._skip(ended?.skipped ?? 0);
    this._embed.textContent = !hasVectors ? "Compute vectors" : missing > 0 ? "Update" : "Recompute";
    this._embed.classList.toggle("main", !hasVectors || missing > 0);
    this._embed.disabled = !status;
    this._reduce.textContent = status?.has_reduction ? "Redraw map" : "Make the map";
    this._reduce.classList.toggle("main", hasVectors && !status?.has_reduction);
    this._reduce.hidden = !hasVectors;
    this._title.textContent = !status ? "No dataset" : hasVectors ? plural(status.embedding_count, "vector") : "No vectors yet";
    this._note.textContent = outcome(ended) || (hasVectors ? modelName(status?.model_name ?? "") : "Every image is read once.");
    this._note.classList.toggle("bad", ended?.status === "error");
    this._more.textContent = missing > 0 ? `${plural(missing, "image")} without one` : "";
  }

  /**
   * @param {Kind} kind
   * @param {Progress} state
   */
  progress(kind, state) {
    this._running(true);
    this.complain("");
    const isKnown = state.total > 0 && state.processed > 0;
    if (isKnown) this._bar.value = state.processed / state.total;
    else this._bar.removeAttribute("value");
    this._percent.textContent = isKnown ? `${Math.floor((100 * state.processed) / state.total)} %` : "";
    this._title.textContent = kind === "embed" ? "Computing vectors" : "Making the map";
    this._note.textContent = isKnown ? `${count(state.processed)} of ${count(state.total)}` : state.message;
    this._note.classList.remove("bad");
    this._more.textContent = pace(state);
    this._skip(kind === "embed" ? state.skipped : 0);
  }

  _start() {
    this._embed.disabled = true;
    this._actions.onEmbed(this._model.value.trim());
  }

  /** @param {boolean} isRunning */
  _running(isRunning) {
    this._bar.classList.toggle("idle", !isRunning);
    this._cancel.hidden = !isRunning;
    this._embed.hidden = isRunning;
    this._reduce.hidden = isRunning;
  }

  /** @param {number} n */
  _skip(n) {
    this._skipped.hidden = n === 0;
    this._skipped.textContent = `${count(n)} skipped…`;
  }
}

/**
 * @param {Progress | null} ended
 * @returns {string} what to say of a job that did not make it, else nothing
 */
function outcome(ended) {
  if (ended?.status === "error") return `The last job failed: ${ended.message}`;
  return ended?.status === "cancelled" ? "Cancelled; the vectors are as before." : "";
}

/**
 * @param {Progress} state
 * @returns {string} "85/s · 2 min left", as far as it is known
 */
function pace({ rate, eta_s }) {
  const speed = rate ? `${rate < 10 ? rate.toFixed(1) : count(Math.round(rate))}/s` : "";
  const left = eta_s === null || eta_s === undefined ? "" : `${duration(eta_s)} left`;
  return [speed, left].filter(Boolean).join(" · ");
}
