/**
 * The queues of findings: what each asks the service, and what is to be decided about each of its entries.
 * @module
 */

import { count, plural, similarity } from "./words.js";

/** @typedef {import("./api.js").Item} Item */
/** @typedef {{threshold: number, keep: string, column: string, phrases: string}} Options `phrases` between commas */
/**
 * @typedef {object} Finding
 * @property {string} key that stays when the queue is asked for again
 * @property {string} says in one line
 * @property {{item: Item, says: string, isChosen: boolean}[]} sides images to compare; the chosen ones get the tag
 * @property {Item} [near] an image whose neighbours help to decide
 * @property {string} [filter] that chooses the images which the finding is about
 */
/**
 * @typedef {object} Queue
 * @property {string} title
 * @property {string} about
 * @property {string} tag that accepting puts on, empty where accepting sets a filter
 * @property {(keyof Options)[]} options that the question takes
 * @property {Record<string, string>} fixed further parameters of the question
 * @property {(answer: any) => Finding[]} read
 * @property {(answer: any) => string} note about the whole answer
 * @property {string} empty
 */

const MISLABELED = 200;

/**
 * @param {string} expression of a filter
 * @returns {string} without the texts in it
 */
const words = (expression) => expression.replace(/'(?:[^']|'')*'/g, "");

/**
 * @param {string} expression of a filter
 * @returns {boolean} whether it names the column of clusters; clusters found under it would overwrite what it asks for
 */
export const namesClusters = (expression) => /\bcluster\b/i.test(words(expression));

/**
 * @param {string} expression of a filter
 * @returns {boolean} whether it names tags: it may choose other images after a tag was put on or taken off
 */
export const namesTags = (expression) => /\btag\b/i.test(words(expression));

/** @type {Record<string, Queue>} by the route that answers */
export const QUEUES = {
  duplicates: {
    title: "Duplicates",
    about: "Of each group the first image is kept; the others are like it.",
    tag: "drop",
    options: ["threshold", "keep"],
    fixed: {},
    read: ({ groups }) => groups.map(duplicates),
    note: unfinished,
    empty: "No two images are that much alike.",
  },
  leaks: {
    title: "Leaks",
    about: "Twins in different parts of the data, exact copies first.",
    tag: "leak",
    options: ["column", "threshold"],
    fixed: {},
    read: ({ items, column }) => items.map((/** @type {any} */ item) => leak(item, column)),
    note: unfinished,
    empty: "No image has a twin in another part.",
  },
  mislabeled: {
    title: "Mislabeled",
    about: "Images whose look speaks for another label, the most doubtful first.",
    tag: "mislabeled",
    options: [],
    fixed: { limit: String(MISLABELED) },
    read: ({ items }) => items.map(mislabeled),
    note: () => "",
    empty: "No label is in doubt.",
  },
  clusters: {
    title: "Clusters",
    about: "Images that lie close together, the largest group first.",
    tag: "",
    options: ["phrases"],
    fixed: {},
    read: ({ items }) => items.map(cluster),
    note: ({ noise }) => `${plural(noise, "image belongs", "images belong")} to no cluster.`,
    empty: "The images form no clusters.",
  },
};

/** @param {{incomplete?: number}} answer */
function unfinished({ incomplete }) {
  return incomplete ? `${plural(incomplete, "image")} may have more twins.` : "";
}

/**
 * @param {(Item & {action: "keep" | "drop", reason: string})[]} group
 * @returns {Finding}
 */
function duplicates(group) {
  return {
    key: group[0].sample_id,
    says: `${plural(group.length, "image")} that look alike`,
    sides: group.map((item) => ({ item, says: `${item.action === "keep" ? "Keep" : "Drop"}: ${item.reason}`, isChosen: item.action === "drop" })),
  };
}

/**
 * @param {any} found
 * @param {string} column
 * @returns {Finding}
 */
function leak({ twin, score, exact, ...item }, column) {
  const side = (/** @type {any} */ one) => ({ item: one, says: `${column}: ${one.value}`, isChosen: one === item });
  return {
    key: item.sample_id,
    says: exact ? "The same file twice" : `${similarity(score)} alike`,
    sides: [side(item), side(twin)],
  };
}

/**
 * @param {Item & {suggested_label: string}} item
 * @returns {Finding}
 */
function mislabeled({ suggested_label, score, ...item }) {
  return {
    key: item.sample_id,
    says: `Labelled ${item.label}; it looks like ${suggested_label}`,
    sides: [{ item, says: `${item.label} → ${suggested_label}?`, isChosen: true }],
    near: item,
  };
}

/**
 * @param {{cluster: number, size: number, medoid: Item, name: string | null, name_share: number | null, label: string | null,
 *   share: number | null}} found
 * @returns {Finding}
 */
function cluster({ cluster: number, size, medoid, name, name_share, label, share }) {
  const named = name !== null && `${name} (${percent(name_share)} of them fit it best)`;
  const labelled = label !== null && `label ${label} (${percent(share)})`;
  return {
    key: String(number),
    says: [named, labelled, plural(size, "image")].filter(Boolean).join(" · "),
    sides: [{ item: medoid, says: `In the middle of ${count(size)}`, isChosen: true }],
    near: medoid,
    filter: `cluster = '${number}'`,
  };
}

/** @param {number | null} share */
const percent = (share) => `${Math.round(100 * (share ?? 0))} %`;
