/**
 * The neighbour graph of a dataset, which questions about large sets need.
 * @module
 */

import * as api from "./api.js";
import { follow } from "./events.js";
import { TERMINAL } from "./watch.js";
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
    if (!(error instanceof api.Problem) || error.body.code !== "graph_needed") throw error;
    await api.makeGraph(datasetId, Number(error.body.k));
  }
  let last = "";
  await follow(api.graphProgressPath(datasetId), {
    signal,
    isLast: ({ data }) => TERMINAL.has(JSON.parse(data).status),
    onBreak: () => say("The service does not answer. Trying again…"),
    onEvent: ({ data }) => {
      const { status, processed, total, message } = JSON.parse(data);
      say(`Finding the neighbours of every image, once: ${count(processed)} of ${count(total)}…`);
      last = status === "complete" ? "" : message;
    },
  });
  if (last && !signal.aborted) throw new Error(`The neighbour graph could not be made: ${last}`);
  return ask();
}
