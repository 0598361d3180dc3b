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
 */

/** @returns {Place} */
export function placed() {
  const { searchParams } = new URL(location.href);
  const one = (/** @type {string} */ name) => searchParams.get(name) ?? "";
  const where = searchParams.getAll("where");
  return { dataset: one("dataset"), where, colour: one("colour"), image: one("image"), words: one("words") };
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
