/**
 * Questions about the vectors of a dataset, each among the images that a filter chooses.
 * @module
 */

import { dataset, filtered, get, post, request } from "./wire.js";

/** @typedef {import("./api.js").Item} Item */

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
 * @param {string[][]} options names and values
 * @param {string} where
 */
export const findingsPath = (id, name, options, where) =>
  `${dataset(id)}/${name}?${new URLSearchParams(where ? [...options, ["where", where]] : options)}`;

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
