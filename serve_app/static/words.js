/** Numbers and times as people read them. @module */

const whole = new Intl.NumberFormat("en");

/**
 * @param {number} n
 * @returns {string} 12345 as "12,345"
 */
export const count = (n) => whole.format(n);

/**
 * @param {number} n
 * @param {string} one
 * @param {string} [many]
 * @returns {string} "1 image", "2 images"
 */
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/**
 * @param {number} cosine
 * @returns {string} three digits: enough to tell a re-encoding (0.998) from a neighbour (0.96)
 */
export const similarity = (cosine) => cosine.toFixed(3);

/**
 * @param {number} seconds
 * @returns {string} "about 3 min"
 */
export function duration(seconds) {
  if (seconds < 1) return "a moment";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/**
 * @param {string} name
 * @returns {string} the model's name; of a checkpoint folder, the folder's own name
 */
export const modelName = (name) => name.split("/").pop() || name;
