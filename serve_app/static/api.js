/**
 * The service's HTTP API but for questions about vectors. Answers are JSON as docs/api.md says.
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

import { tableFromIPC } from "./vendor/arrow.js";
import { dataset, filtered, get, post, Problem, request } from "./wire.js";

const ARROW = "application/vnd.apache.arrow.stream";

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
 * @param {string} format "parquet" has the vectors; the others are of the samples
 * @param {string} where
 * @returns {string} path of a file
 */
export const exportPath = (id, format, where) =>
  `${dataset(id)}/${format === "parquet" ? "embeddings/export" : "export"}?format=${format}${filtered(where)}`;

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
