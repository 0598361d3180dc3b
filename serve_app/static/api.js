/**
 * The service's HTTP API. Answers are JSON as docs/api.md says; errors are `Problem`s with the server's own words.
 * @module
 */

/** @typedef {{id: string, name: string, root: string, format: string, sample_count: number, notices?: string[]}} Dataset */
/** @typedef {{name: string, path: string, images: number | null}} Folder */
/** @typedef {{id: string, file_name: string, label: string | null}} Sample */
/** @typedef {{sample_id: string, file_name: string, label: string | null, score?: number, group?: number}} Item */
/** @typedef {{sample_id: string, file_name: string, reason: string, detail: string}} Skip */
/**
 * @typedef {{name: string, type: "text" | "number" | "boolean" | "time", count: number, distinct: number,
 *   values: {value: string, count: number}[], min: number | string | null, max: number | string | null}} Column
 */
/**
 * @typedef {{dataset_id: string, has_embeddings: boolean, embedding_count: number, model_name: string | null,
 *   has_reduction: boolean, sample_count: number, sets?: import("./sets.js").SetOfVectors[]}} Status
 */
/**
 * @typedef {{id: string, dataset_id: string, kind: "embed" | "reduce" | "import" | "graph" | "register" | "rescan", status: string, processed: number,
 *   skipped: number, total: number, message: string}} Job
 */

import { ofChosenSet } from "./sets.js";
import { tableFromIPC } from "./vendor/arrow.js";

const KEY = "constellate.key";
const ARROW = "application/vnd.apache.arrow.stream";

/** The page may be served below a path of a proxy. */
const base = new URL(".", document.baseURI);

/** An answer that is not a success; `message` is the server's `detail`. */
export class Problem extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 when the service gave no answer
   * @param {Record<string, unknown>} [body]
   */
  constructor(message, status, body = {}) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

/** @type {(refused: boolean) => Promise<string>} */
let askKey = () => Promise.reject(new Problem("The service wants an API key.", 401));
/** @type {Promise<void> | null} */
let asking = null;

/**
 * @param {(refused: boolean) => Promise<string>} ask called on 401; `refused` when a key was given and is wrong
 */
export function onKeyWanted(ask) {
  askKey = ask;
}

/** @returns {boolean} whether requests carry a key; then images cannot be plain URLs */
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/**
 * @param {string} path below the page, already encoded
 * @returns {string}
 */
export const urlOf = (path) => new URL(ofChosenSet(path), base).href;

/**
 * Request with the key, asking for one on 401.
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<Response>} a successful one
 */
export async function request(path, init = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = new Headers(init.headers);
  if (key !== null) headers.set("Authorization", `Bearer ${key}`);
  const response = await fetch(urlOf(path), { ...init, headers }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service does not answer. Is it still running?", 0);
  });
  if (response.status === 401) {
    await newKey(key);
    return request(path, init);
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

/**
 * One dialog for all requests that fail together.
 * @param {string | null} failed
 */
async function newKey(failed) {
  if (sessionStorage.getItem(KEY) !== failed) return;
  asking ??= askKey(failed !== null)
    .then((key) => sessionStorage.setItem(KEY, key))
    .finally(() => {
      asking = null;
    });
  await asking;
}

/** @param {Response} response */
async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  return new Problem(String(body.detail ?? `The service answered ${response.status}.`), response.status, body);
}

/**
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
const get = async (path, signal) => (await request(path, { signal })).json();

/**
 * @param {string} path
 * @param {unknown} [body]
 */
async function post(path, body) {
  const init = body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return (await request(path, { method: "POST", ...init })).json();
}

/**
 * @param {string} where a filter, empty for none
 * @returns {string} as a further part of a query
 */
const filtered = (where) => (where ? `&where=${encodeURIComponent(where)}` : "");

/** @param {string} id */
const dataset = (id) => `datasets/${encodeURIComponent(id)}`;

/** @returns {Promise<Dataset[]>} */
export const listDatasets = () => get("datasets");

const LISTED_EVERY_MS = 500;

/**
 * Have a job list files, and wait for its end.
 * @param {string} path
 * @param {object} body
 * @param {(files: number) => void} onFiles told how many are listed so far
 * @returns {Promise<{dataset_id: string, message: string}>} the last message says what was found
 */
async function listed(path, body, onFiles) {
  const headers = { "Content-Type": "application/json", Prefer: "respond-async" };
  const { id, dataset_id = id, job_id } = await (await request(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
  if (!job_id) return { dataset_id, message: "" };
  for (;;) {
    const job = await readJob(job_id).catch((error) => {
      if (error instanceof Problem && (error.status === 0 || error.status >= 500)) return null; // the job goes on
      throw error;
    });
    if (job?.status === "complete") return { dataset_id, message: job.message };
    if (job && job.status !== "running") throw new Problem(job.message.replace(/^[a-z_]+: /, ""), 0);
    if (job) onFiles(job.processed);
    await new Promise((resolve) => setTimeout(resolve, LISTED_EVERY_MS));
  }
}

/**
 * @param {string} path empty for the roots
 * @param {string} cursor of a further page, empty for the first
 * @returns {Promise<{path: string | null, parent: string | null, items: Folder[], next_cursor: string | null}>}
 */
export const listFolders = (path, cursor) => get(`folders?${new URLSearchParams({ ...(path && { path }), ...(cursor && { cursor }) })}`);

/**
 * @param {{name: string, root: string, format: string, annotations?: string}} body
 * @param {(files: number) => void} onFiles
 * @returns {Promise<Dataset>}
 */
export async function registerDataset(body, onFiles) {
  const { dataset_id } = await listed("datasets", body, onFiles);
  return get(dataset(dataset_id));
}

/**
 * @param {string} id
 * @param {(files: number) => void} onFiles
 * @returns {Promise<string>} what has changed
 */
export const rescan = async (id, onFiles) => (await listed(`${dataset(id)}/rescan`, {}, onFiles)).message;

/**
 * @param {string} id
 * @param {number} limit
 * @param {string | null} cursor
 * @param {string} where
 * @returns {Promise<{items: Sample[], next_cursor: string | null}>}
 */
export const listSamples = (id, limit, cursor, where) =>
  get(`${dataset(id)}/samples?limit=${limit}${cursor === null ? "" : `&cursor=${encodeURIComponent(cursor)}`}${filtered(where)}`);

/**
 * @param {string} id
 * @returns {Promise<Column[]>}
 */
export const listColumns = (id) => get(`${dataset(id)}/columns`);

/**
 * @param {string} id
 * @param {string} name
 * @param {AbortSignal} [signal]
 * @returns {Promise<{ids: string[], values: any[]}>} of the samples that have a value; times are milliseconds since 1970
 */
export async function columnValues(id, name, signal) {
  const table = await tableFromIPC(await request(`${dataset(id)}/columns/${encodeURIComponent(name)}`, { signal }));
  return { ids: listOf(table.getChild("sample_id")), values: listOf(table.getChild("value")) };
}

/** @param {{length: number, get(index: number): any} | null} column of an Arrow table */
const listOf = (column) => Array.from({ length: column?.length ?? 0 }, (_, row) => column?.get(row));

/**
 * @param {string} id
 * @param {string} where
 * @param {AbortSignal} signal
 * @returns {Promise<string[]>} ids of the samples on the map that a filter chooses
 */
export async function sampleIdsOnMap(id, where, signal) {
  const init = { headers: { Accept: ARROW }, signal };
  const table = await tableFromIPC(await request(`${dataset(id)}/embeddings/coordinates?${filtered(where).slice(1)}`, init));
  return listOf(table.getChild("sample_id"));
}

/**
 * @param {string} id
 * @returns {Promise<{value: string, count: number}[]>}
 */
export const listTags = (id) => get(`${dataset(id)}/tags`);

/** @typedef {{where?: string, sample_ids?: string[]}} Choice of samples */

/**
 * @param {string} id
 * @param {string} tag
 * @param {Choice} choice
 * @param {"POST" | "DELETE"} method to put the tag on or take it off
 * @returns {Promise<{changed: number, selected: number}>}
 */
export const changeTag = async (id, tag, choice, method) => {
  const init = { method, body: JSON.stringify(choice), headers: { "Content-Type": "application/json" } };
  return (await request(`${dataset(id)}/tags/${encodeURIComponent(tag)}`, init)).json();
};

/**
 * @param {string} id
 * @param {string[]} sampleIds at most 256
 * @param {number} sizePx side of a cell
 * @param {AbortSignal} signal
 * @returns {Promise<Blob>} an image of ⌈√n⌉ columns of cells
 */
export async function sprites(id, sampleIds, sizePx, signal) {
  const body = JSON.stringify({ sample_ids: sampleIds, size_px: sizePx });
  const init = { method: "POST", body, headers: { "Content-Type": "application/json" }, signal };
  return (await request(`${dataset(id)}/sprites`, init)).blob();
}

/** @returns {Promise<Job[]>} newest first */
export const listJobs = () => get("jobs?limit=100");

/**
 * @param {string} id
 * @returns {Promise<Status>}
 */
export const embeddingStatus = (id) => get(`${dataset(id)}/embeddings/status`);

/**
 * @param {string} id
 * @param {{model_name?: string}} body
 * @returns {Promise<{job_id: string}>}
 */
export const generate = (id, body) => post(`${dataset(id)}/embeddings/generate`, body);

/**
 * @param {string} id
 * @param {{n_neighbors?: number, min_dist?: number, redraw?: boolean}} body
 * @returns {Promise<{job_id: string}>}
 */
export const reduce = (id, body) => post(`${dataset(id)}/embeddings/reduce`, body);

/**
 * @param {string} id
 * @param {number} k neighbours of each image
 * @returns {Promise<{job_id: string}>}
 */
export const makeGraph = (id, k) => post(`${dataset(id)}/graph`, { k });

/**
 * @param {string} jobId
 * @returns {Promise<Job>}
 */
export const readJob = (jobId) => get(`jobs/${encodeURIComponent(jobId)}`);

/**
 * @param {string} jobId of a job of any kind
 * @returns {string} path of its progress stream
 */
export const jobProgressPath = (jobId) => `jobs/${encodeURIComponent(jobId)}/progress`;

/** @param {string} id */
export const cancel = (id) => post(`${dataset(id)}/embeddings/cancel`);

/**
 * @param {string} id
 * @returns {Promise<{items: Skip[], next_cursor?: string | null}>}
 */
export const skipped = (id) => get(`${dataset(id)}/embeddings/skipped`);

/**
 * @param {string} id
 * @param {"embed" | "reduce"} kind
 * @returns {string} path of the progress stream
 */
export const progressPath = (id, kind) =>
  `${dataset(id)}/embeddings/${kind === "reduce" ? "reduce/" : ""}progress`;

/**
 * @param {string} id
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>} an Arrow IPC stream
 */
export const coordinates = (id, signal) =>
  request(`${dataset(id)}/embeddings/coordinates`, { headers: { Accept: ARROW }, signal });

/**
 * @param {string} id
 * @param {string} where
 */
export const parquetPath = (id, where) => `${dataset(id)}/embeddings/export?format=parquet${filtered(where)}`;

/**
 * @param {string} id
 * @param {string} sampleId
 */
export const imagePath = (id, sampleId) => `${dataset(id)}/samples/${encodeURIComponent(sampleId)}/image`;

/**
 * @param {string} id
 * @param {string} sampleId
 * @param {number} sizePx
 */
export const thumbnailPath = (id, sampleId, sizePx) =>
  `${dataset(id)}/samples/${encodeURIComponent(sampleId)}/thumbnail?size=${sizePx}`;

/**
 * @param {string} id
 * @param {string} sampleId
 * @param {number} limit
 * @param {string} where
 * @param {AbortSignal} [signal]
 * @returns {Promise<{items: Item[]}>}
 */
export const similar = (id, sampleId, limit, where, signal) =>
  get(`${dataset(id)}/similarity/${encodeURIComponent(sampleId)}?limit=${limit}${filtered(where)}`, signal);

/**
 * @param {string} id
 * @param {File} file
 * @param {number} limit
 * @param {string} where
 * @returns {Promise<{items: Item[]}>}
 */
export async function searchByImage(id, file, limit, where) {
  const body = new FormData();
  body.append("file", file);
  return (await request(`${dataset(id)}/search?limit=${limit}${filtered(where)}`, { method: "POST", body })).json();
}

/**
 * @param {string} id
 * @param {string} text
 * @param {number} limit
 * @param {string} where
 * @param {AbortSignal} [signal]
 * @returns {Promise<{items: Item[], notices: string[]}>}
 */
export async function searchByText(id, text, limit, where, signal) {
  const init = { method: "POST", body: JSON.stringify({ text }), headers: { "Content-Type": "application/json" }, signal };
  return (await request(`${dataset(id)}/search?limit=${limit}${filtered(where)}`, init)).json();
}

/**
 * @param {string} id
 * @param {number} threshold
 * @param {string} where
 * @param {AbortSignal} [signal]
 * @returns {Promise<{threshold: number, groups: Item[][], incomplete?: number}>}
 */
export const duplicates = (id, threshold, where, signal) => get(`${dataset(id)}/duplicates?threshold=${threshold}${filtered(where)}`, signal);

/**
 * @param {string} id
 * @param {number} limit
 * @param {string} where
 * @param {AbortSignal} [signal]
 * @returns {Promise<{items: Item[]}>}
 */
export const outliers = (id, limit, where, signal) => get(`${dataset(id)}/outliers?limit=${limit}${filtered(where)}`, signal);

/**
 * @param {string} id
 * @param {number} n
 * @param {string} where
 * @param {AbortSignal} [signal]
 * @returns {Promise<{items: Item[]}>}
 */
export const diverse = (id, n, where, signal) => get(`${dataset(id)}/diverse?n=${n}${filtered(where)}`, signal);

/**
 * @param {string} id
 * @param {string} name of the finding
 * @param {Record<string, string>} options
 * @param {string} where
 */
export const findingsPath = (id, name, options, where) => `${dataset(id)}/${name}?${new URLSearchParams({ ...options, ...(where && { where }) })}`;

/**
 * @param {string} path of `findingsPath`
 * @param {AbortSignal} signal
 * @returns {Promise<any>}
 */
export const findings = (path, signal) => get(path, signal);

/**
 * Put the number of each sample's cluster into the column `cluster`.
 * @param {string} id
 * @param {string} where
 * @returns {Promise<unknown>}
 */
export const putClusters = (id, where) => post(`${dataset(id)}/clusters?column=cluster${filtered(where)}`);
