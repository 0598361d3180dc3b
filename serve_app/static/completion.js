/**
 * What may come next in a filter: columns, words of the language, and values of the column before the caret.
 * @module
 */

/** @typedef {import("./api.js").Column} Column */
/** @typedef {{text: string, note: string}} Suggestion */
/** @typedef {{from: number, items: Suggestion[]}} Suggestions */

const MOST = 8;
const PLAIN = /^[A-Za-z_][A-Za-z0-9_]*$/;
const WORDS = [
  ["AND", "both hold"],
  ["OR", "one holds"],
  ["NOT", "it does not hold"],
  ["IN (", "one of several values"],
  ["LIKE '", "a pattern: % is any text"],
  ["ILIKE '", "the same in any case"],
  ["BETWEEN", "a range"],
  ["IS NULL", "no value"],
  ["IS NOT NULL", "some value"],
].map(([text, note]) => ({ text, note }));

/**
 * @param {string} text of the filter
 * @param {number} caret
 * @param {Column[]} columns
 * @returns {Suggestions} texts that may stand from `from` to the caret
 */
export function suggestions(text, caret, columns) {
  const before = text.slice(0, caret);
  const open = openQuote(before);
  if (open >= 0) {
    const column = columnBefore(before.slice(0, open), columns);
    return { from: open, items: best(valuesOf(column), before.slice(open + 1)) };
  }
  const word = /[\p{L}\p{N}_"]*$/u.exec(before)?.[0] ?? "";
  const from = caret - word.length;
  const names = columns.map(({ name, type }) => ({ text: spelled(name), note: type }));
  const column = /(=|<>|<=?|>=?|\bLIKE|\()\s*$/i.test(before.slice(0, from)) ? columnBefore(before.slice(0, from), columns) : undefined;
  const all = column ? valuesOf(column) : [...names, ...WORDS];
  return { from, items: best(all, word) };
}

/**
 * @param {string} name of a column
 * @returns {string} as it stands in a filter
 */
export const spelled = (name) => (PLAIN.test(name) ? name : `"${name.replaceAll('"', '""')}"`);

/**
 * @param {string} text
 * @returns {string} as a literal
 */
export const literal = (text) => `'${text.replaceAll("'", "''")}'`;

/**
 * @param {Column | undefined} column
 * @returns {Suggestion[]}
 */
function valuesOf(column) {
  if (!column) return [];
  if (column.type === "boolean") return ["true", "false"].map((text) => ({ text, note: "" }));
  if (column.type === "number") {
    return [column.min, column.max].filter((one) => one !== null).map((one, i) => ({ text: String(one), note: i ? "the most" : "the least" }));
  }
  return column.values.map(({ value, count }) => ({ text: literal(value), note: String(count) }));
}

/**
 * @param {Suggestion[]} items
 * @param {string} typed
 */
function best(items, typed) {
  const wanted = typed.replace(/^["']/, "").toLowerCase();
  const bare = (/** @type {Suggestion} */ { text }) => text.replace(/^["']/, "").toLowerCase();
  const begins = items.filter((item) => bare(item).startsWith(wanted));
  const holds = items.filter((item) => !bare(item).startsWith(wanted) && bare(item).includes(wanted));
  const found = [...begins, ...holds].filter((item) => bare(item) !== wanted);
  return found.slice(0, MOST);
}

/**
 * @param {string} before
 * @returns {number} where the quote of an unfinished text stands, -1 for none
 */
function openQuote(before) {
  const rest = before.replace(/'(?:[^']|'')*'(?!')|"(?:[^"]|"")*"/g, (match) => " ".repeat(match.length));
  return rest.indexOf("'");
}

/**
 * @param {string} before
 * @param {Column[]} columns
 * @returns {Column | undefined} the last column that is named
 */
function columnBefore(before, columns) {
  const names = [...before.matchAll(/"((?:[^"]|"")+)"|([\p{L}_][\p{L}\p{N}_]*)/gu)].map(([, quoted, plain]) => (quoted?.replaceAll('""', '"') ?? plain).toLowerCase());
  const known = names.filter((name) => columns.some((column) => column.name.toLowerCase() === name));
  return columns.find(({ name }) => name.toLowerCase() === known.at(-1));
}
