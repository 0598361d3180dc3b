/**
 * What the page shows, in its address: a colleague who opens the address sees the same.
 * @module
 */

/**
 * @typedef {object} Place
 * @property {string} dataset id, empty for none
 * @property {string[]} where filters that all hold
 * @property {string} colour the column that colours the points, empty for the label
 * @property {string} image sample id of the open image, empty for none
 * @property {string} words that are searched for, empty for none
 * @property {string} finding the queue of findings that is worked through, empty for none
 * @property {string} item key of its finding that is shown, empty for none
 * @property {string} threshold that the queue is asked for, empty for the usual one
 * @property {string} keep which image of a group is kept, empty for the usual one
 * @property {string} column that leaks are looked for across, empty for the usual one
 * @property {string} phrases that clusters are named by, between commas, empty for none
 */

/** @returns {Place} */
export function placed() {
  const { searchParams } = new URL(location.href);
  const one = (/** @type {string} */ name) => searchParams.get(name) ?? "";
  const where = searchParams.getAll("where");
  const [dataset, colour, image, words] = ["dataset", "colour", "image", "words"].map(one);
  const [finding, item, threshold, keep, column, phrases] = ["finding", "item", "threshold", "keep", "column", "phrases"].map(one);
  return { dataset, where, colour, image, words, finding, item, threshold, keep, column, phrases };
}

/**
 * Change parts of the address without another entry in the history.
 * @param {Partial<Place>} change
 */
export function place(change) {
  const address = new URL(location.href);
  for (const [name, value] of Object.entries(change)) {
    address.searchParams.delete(name);
    for (const one of [value].flat()) if (one) address.searchParams.append(name, one);
  }
  history.replaceState(null, "", address);
}
