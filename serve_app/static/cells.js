/**
 * Some of the points by place: a uniform grid whose cells know how many points they hold, and which.
 * @module
 */

/** Where the points lay evenly, a cell would hold this many. */
const PER_CELL = 4;
const MOST_ACROSS = 1024;

/** @typedef {[number, number, number, number]} Box left, bottom, right and top in map units */

export class Cells {
  /**
   * @param {Float32Array} xy 2N places within ±1
   * @param {ArrayLike<number>} rows that are held; within a cell they keep this order
   */
  constructor(xy, rows) {
    this._xy = xy;
    this.count = rows.length;
    this.across = Math.min(MOST_ACROSS, Math.ceil(Math.sqrt(rows.length / PER_CELL))) || 1;
    this.size = 2 / this.across;
    this._starts = new Uint32Array(this.across ** 2 + 1);
    this._rows = new Uint32Array(rows.length);
    this.occupied = this._fill(rows);
  }

  /**
   * @param {ArrayLike<number>} rows
   * @returns {number} how many cells hold any
   */
  _fill(rows) {
    const [starts, keys] = [this._starts, new Uint32Array(rows.length)];
    for (let i = 0; i < rows.length; i++) {
      keys[i] = this._line(this._xy[2 * rows[i] + 1]) * this.across + this._line(this._xy[2 * rows[i]]);
      starts[keys[i] + 1]++;
    }
    const occupied = starts.reduce((sum, n) => sum + (n > 0 ? 1 : 0), 0);
    for (let key = 1; key < starts.length; key++) starts[key] += starts[key - 1];
    const next = starts.slice();
    for (let i = 0; i < rows.length; i++) this._rows[next[keys[i]]++] = rows[i];
    return occupied;
  }

  /**
   * @param {number} at x or y
   * @returns {number} the column or line of cells there, of those that there are
   */
  _line(at) {
    return Math.min(this.across - 1, Math.max(0, Math.floor((at + 1) / this.size)));
  }

  /**
   * @param {Box} box
   * @returns {number[]} the rows in it, its left and lower edges included
   */
  rowsIn([left, bottom, right, top]) {
    /** @type {number[]} */
    const found = [];
    const [first, last] = [this._line(left), this._line(right)];
    for (let line = this._line(bottom); line <= this._line(top); line++) {
      const [from, to] = [this._starts[line * this.across + first], this._starts[line * this.across + last + 1]];
      for (let i = from; i < to; i++) {
        const [x, y] = [this._xy[2 * this._rows[i]], this._xy[2 * this._rows[i] + 1]];
        if (x >= left && x < right && y >= bottom && y < top) found.push(this._rows[i]);
      }
    }
    return found;
  }

  /**
   * @param {number} column
   * @param {number} line
   * @param {number} width in cells
   * @returns {{n: number, x: number, y: number}} how many points a square of cells holds, and their middle, as the cells tell
   */
  crowd(column, line, width) {
    const [left, right] = [Math.max(0, column), Math.min(this.across, column + width)];
    let [n, x, y] = [0, 0, 0];
    for (let j = Math.max(0, line); j < Math.min(this.across, line + width); j++) {
      for (let i = left; i < right; i++) {
        const held = this._starts[j * this.across + i + 1] - this._starts[j * this.across + i];
        n += held;
        x += held * i;
        y += held * j;
      }
    }
    return { n, x: (x / n + 0.5) * this.size - 1, y: (y / n + 0.5) * this.size - 1 };
  }

  /**
   * @param {number} x
   * @param {number} y
   * @returns {number} a row near this place, the nearest one where it is crowded; -1 without points
   */
  near(x, y) {
    for (let reach = this.size; this.count; reach *= 2) {
      const found = this.rowsIn([x - reach, y - reach, x + reach, y + reach]);
      const distance = (/** @type {number} */ row) => Math.hypot(this._xy[2 * row] - x, this._xy[2 * row + 1] - y);
      if (found.length) return found.reduce((best, row) => (distance(row) < distance(best) ? row : best));
    }
    return -1;
  }
}
