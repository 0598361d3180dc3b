/**
 * Requests to the service: where it is, the key, and errors, which are `Problem`s with the server's own words.
 * @module
 */

import { ofChosenSet } from "./sets.js";

const KEY = "constellate.key";

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
 * @returns {Promise<any>} the answer's JSON
 */
export const get = async (path, signal) => (await request(path, { signal })).json();

/**
 * @param {string} path
 * @param {unknown} [body]
 * @returns {Promise<any>} the answer's JSON
 */
export async function post(path, body) {
  const init = body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return (await request(path, { method: "POST", ...init })).json();
}

/**
 * @param {string} where a filter, empty for none
 * @returns {string} as a further part of a query
 */
export const filtered = (where) => (where ? `&where=${encodeURIComponent(where)}` : "");

/**
 * @param {string} id
 * @returns {string} path of a dataset
 */
export const dataset = (id) => `datasets/${encodeURIComponent(id)}`;
