/**
 * What the jobs of one dataset do: asked every few seconds, streamed while one runs, asked again with growing
 * pauses while the service is away.
 * @module
 */

import * as api from "./api.js";
import { follow, pause } from "./events.js";

const POLL_MS = 4000;
const FIRST_RETRY_MS = 1000;
const MAX_RETRY_MS = 15_000;
export const TERMINAL = new Set(["complete", "error", "cancelled"]);

/**
 * @typedef {object} Progress
 * @property {string} status
 * @property {number} processed
 * @property {number} total
 * @property {number} skipped
 * @property {string} message
 * @property {string | null} job_id
 * @property {number | null} rate
 * @property {number | null} eta_s
 */
/** @typedef {"embed" | "reduce"} Kind */

/**
 * @param {api.Job} job
 * @returns {Kind} the stream that tells of it: an import makes vectors, as embedding does
 */
const streamOf = (job) => (job.kind === "reduce" ? "reduce" : "embed");

/** Jobs that neither make vectors nor a map. */
const OTHERS = new Set(["graph", "register", "rescan"]);

export class Watch {
  /**
   * @param {{onProgress: (kind: Kind, state: Progress) => void, onEnd: (kind: Kind, state: Progress, isNews: boolean) => void,
   *   onAway: (retryMs: number) => void, onBack: () => void}} events
   */
  constructor(events) {
    this._events = events;
    this._stop = new AbortController();
    this._wake = () => {};
    this._isAway = false;
    this._isFirstLook = true;
    /** @type {Map<Kind, string>} the newest ended job of each kind that was told of */
    this._ended = new Map();
  }

  /** @param {string | null} datasetId null to only see whether the service is there */
  start(datasetId) {
    this._stop.abort();
    this._stop = new AbortController();
    this._ended.clear();
    this._isFirstLook = true;
    this._run(datasetId, this._stop.signal);
  }

  /** Ask now: a job was just started. */
  nudge() {
    this._wake();
  }

  /**
   * @param {string | null} datasetId
   * @param {AbortSignal} signal
   */
  async _run(datasetId, signal) {
    let retryMs = FIRST_RETRY_MS;
    while (!signal.aborted) {
      const nudged = new Promise((resolve) => (this._wake = () => resolve(undefined)));
      try {
        const jobs = await api.listJobs();
        if (signal.aborted) return;
        retryMs = FIRST_RETRY_MS;
        this._back();
        const running = this._tell(jobs.filter((job) => job.dataset_id === datasetId));
        if (running && datasetId) await this._stream(datasetId, streamOf(running), signal);
        else await Promise.race([pause(POLL_MS, signal), nudged]);
      } catch {
        if (signal.aborted) return;
        this._away(retryMs);
        await Promise.race([pause(retryMs, signal), nudged]);
        retryMs = Math.min(2 * retryMs, MAX_RETRY_MS);
      }
    }
  }

  /**
   * Tell of jobs that ended since the last look (what the first look finds is no news), and find the one that runs.
   * @param {api.Job[]} jobs of the dataset, newest first
   * @returns {api.Job | undefined}
   */
  _tell(jobs) {
    for (const kind of /** @type {Kind[]} */ (["embed", "reduce"])) {
      const newest = jobs.find((job) => !OTHERS.has(job.kind) && streamOf(job) === kind);
      if (newest && TERMINAL.has(newest.status)) this._end(kind, { ...newest, job_id: newest.id, rate: null, eta_s: null });
    }
    this._isFirstLook = false;
    return jobs.find((job) => !TERMINAL.has(job.status) && !OTHERS.has(job.kind));
  }

  /**
   * @param {string} datasetId
   * @param {Kind} kind
   * @param {AbortSignal} signal
   */
  _stream(datasetId, kind, signal) {
    return follow(api.progressPath(datasetId, kind), {
      signal,
      isLast: ({ data }) => TERMINAL.has(JSON.parse(data).status),
      onBreak: (retryMs) => this._away(retryMs),
      onEvent: ({ data }) => {
        this._back();
        const state = /** @type {Progress} */ (JSON.parse(data));
        if (TERMINAL.has(state.status)) this._end(kind, state);
        else this._events.onProgress(kind, state);
      },
    });
  }

  /**
   * @param {Kind} kind
   * @param {Progress} state
   */
  _end(kind, state) {
    const id = state.job_id ?? "";
    if (this._ended.get(kind) === id) return;
    this._ended.set(kind, id);
    this._events.onEnd(kind, state, !this._isFirstLook);
  }

  /** @param {number} retryMs */
  _away(retryMs) {
    this._isAway = true;
    this._events.onAway(retryMs);
  }

  _back() {
    if (!this._isAway) return;
    this._isAway = false;
    this._events.onBack();
  }
}
