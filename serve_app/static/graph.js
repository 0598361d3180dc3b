/**
 * The neighbour graph of a dataset, which questions about large sets need.
 * @module
 */

import * as api from "./api.js";
import { follow } from "./events.js";
import { TERMINAL } from "./watch.js";
import { Problem } from "./wire.js";
import { count } from "./words.js";

/**
 * Ask; where the set is too large to compare all pairs, make its neighbour graph first, which later questions use, too.
 * @template T
 * @param {string} datasetId
 * @param {() => Promise<T>} ask
 * @param {AbortSignal} signal
 * @param {(text: string) => void} say
 * @returns {Promise<T>}
 */
export async function withGraph(datasetId, ask, signal, say) {
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof Problem) || error.body.code !== "graph_needed") throw error;
    await made(datasetId, Number(error.body.k), signal, say);
  }
  return signal.aborted ? ask() : withGraph(datasetId, ask, signal, say);
}

/**
 * Make the graph, or wait for the job that keeps the service from it.
 * @param {string} datasetId
 * @param {number} k
 * @param {AbortSignal} signal
 * @param {(text: string) => void} say
 */
async function made(datasetId, k, signal, say) {
  const running = await begun(datasetId, k);
  const isGraph = running.kind === "graph";
  const what = isGraph ? "Finding the neighbours of every image, once" : "Waiting for another job of this dataset";
  let last = "";
  await follow(api.jobProgressPath(running.id), {
    signal,
    isLast: ({ data }) => TERMINAL.has(JSON.parse(data).status),
    onBreak: () => say("The service does not answer. Trying again…"),
    onEvent: ({ data }) => {
      const { status, processed, total, message } = JSON.parse(data);
      say(`${what}: ${count(processed)} of ${count(total)}…`);
      last = status === "complete" ? "" : message;
    },
  });
  if (isGraph && last && !signal.aborted) throw new Error(`The neighbour graph could not be made: ${last}`);
}

/**
 * @param {string} datasetId
 * @param {number} k
 * @returns {Promise<{id: string, kind: string}>} the job that makes the graph, or the one that runs already
 */
async function begun(datasetId, k) {
  try {
    const { job_id } = await api.makeGraph(datasetId, k);
    return { id: job_id, kind: "graph" };
  } catch (error) {
    if (!(error instanceof Problem) || typeof error.body.job_id !== "string") throw error;
    return api.readJob(error.body.job_id);
  }
}
