/**
 * Which points are shown as pictures: none overlaps another, and where points are crowded one stands for its neighbours.
 * @module
 */

/** Where a cell of a picture's size has more points than this, pictures are rarer and the points show between them. */
const CROWDED = 4;
const RARE = 1.6;

/**
 * Where there is room, each point; where points are crowded, the middle one of each dense place, the densest first.
 * @param {Float32Array} xy 2N places in map units
 * @param {ArrayLike<number>} rows that may be chosen
 * @param {number} side of a picture in map units
 * @returns {number[]} rows whose squares do not overlap
 */
export function placed(xy, rows, side) {
  const cells = cellsOf(xy, rows, side);
  if (rows.length <= CROWDED * cells.size) return apart(xy, Array.from(rows), side);
  const dense = [...cells.keys()].map((key) => around(cells, key)).filter(({ n }) => n > CROWDED);
  dense.sort((a, b) => b.n - a.n);
  return apart(xy, dense.map((place) => medoid(xy, place)), side * RARE);
}

/** @typedef {{n: number, x: number, y: number, rows: number[]}} Cell sums of places, and whose */

/**
 * @param {Float32Array} xy
 * @param {ArrayLike<number>} rows
 * @param {number} size
 * @returns {Map<number, Cell>}
 */
function cellsOf(xy, rows, size) {
  /** @type {Map<number, Cell>} */
  const cells = new Map();
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i];
    const key = keyOf(xy[2 * row], xy[2 * row + 1], size);
    let cell = cells.get(key);
    if (!cell) cells.set(key, (cell = { n: 0, x: 0, y: 0, rows: [] }));
    cell.n++;
    cell.x += xy[2 * row];
    cell.y += xy[2 * row + 1];
    cell.rows.push(row);
  }
  return cells;
}

/**
 * @param {Map<number, Cell>} cells
 * @param {number} key
 * @returns {Cell} a cell and its eight neighbours together
 */
function around(cells, key) {
  const near = [-1, 0, 1].flatMap((dx) => [-1, 0, 1].map((dy) => cells.get(key + dx * COLUMN + dy)));
  const found = /** @type {Cell[]} */ (near.filter(Boolean));
  const sum = (/** @type {"n" | "x" | "y"} */ name) => found.reduce((total, cell) => total + cell[name], 0);
  return { n: sum("n"), x: sum("x"), y: sum("y"), rows: cells.get(key)?.rows ?? [] };
}

/**
 * @param {Float32Array} xy
 * @param {Cell} cell
 * @returns {number} the row nearest to the mean
 */
function medoid(xy, { n, x, y, rows }) {
  const distance = (/** @type {number} */ row) => Math.hypot(xy[2 * row] - x / n, xy[2 * row + 1] - y / n);
  return rows.reduce((best, row) => (distance(row) < distance(best) ? row : best));
}

/**
 * @param {Float32Array} xy
 * @param {number[]} rows the first ones count
 * @param {number} side
 * @returns {number[]} those whose squares overlap none before them
 */
function apart(xy, rows, side) {
  /** @type {Map<number, number>} at most one square has its middle in a cell of half its side */
  const taken = new Map();
  const half = side / 2;
  return rows.filter((row) => {
    const [x, y] = [xy[2 * row], xy[2 * row + 1]];
    for (let dx = -2; dx <= 2; dx++) {
      for (let dy = -2; dy <= 2; dy++) {
        const other = taken.get(keyOf(x + dx * half, y + dy * half, half));
        if (other !== undefined && Math.abs(xy[2 * other] - x) < side && Math.abs(xy[2 * other + 1] - y) < side) return false;
      }
    }
    taken.set(keyOf(x, y, half), row);
    return true;
  });
}

const COLUMN = 2 ** 26;

/**
 * @param {number} x
 * @param {number} y
 * @param {number} size of a cell; places lie within ±2
 * @returns {number} of the cell
 */
const keyOf = (x, y, size) => Math.floor((x + 4) / size) * COLUMN + Math.floor((y + 4) / size);
