/**
 * Which points are shown as pictures: none overlaps another, and where points are crowded one stands for its neighbours.
 * Only what is in view is looked at; what was chosen once stays, so that nothing flickers while the map moves.
 * @module
 */

import { Cells } from "./cells.js";

/** Where a picture's square holds more points than this, pictures are rarer and the points show between them. */
const CROWDED = 4;
const RARE = 1.6;
/** Pictures are chosen in tiles of this many squares across; where it is crowded, of places of half a square. */
const TILE = 8;
const CROWDED_TILE = 32;

/** @typedef {import("./cells.js").Box} Box */

export class Placing {
  /**
   * @param {Float32Array} xy 2N places within ±1
   * @param {ArrayLike<number>} rows that may be chosen, the first ones first
   * @param {number[]} landmarks rows that stand for many, the most first: they are chosen first where it is crowded
   */
  constructor(xy, rows, landmarks) {
    this._xy = xy;
    this._cells = new Cells(xy, rows);
    this._landmarks = landmarks;
    /** @type {Map<number, Level>} by side of a picture */
    this._levels = new Map();
  }

  /**
   * @param {number} side of a picture in map units
   * @param {Box} view
   * @returns {number[]} rows in or near the view whose squares do not overlap
   */
  within(side, view) {
    let level = this._levels.get(side);
    if (!level) this._levels.set(side, (level = new Level(this._xy, this._cells, side, this._landmarks)));
    return level.within(view);
  }
}

/** The pictures of one zoom, as far as they were in view. */
class Level {
  /**
   * @param {Float32Array} xy
   * @param {Cells} cells
   * @param {number} side of a picture in map units
   * @param {number[]} landmarks
   */
  constructor(xy, cells, side, landmarks) {
    this._xy = xy;
    this._cells = cells;
    this._isCrowded = cells.count * (side / cells.size) ** 2 > CROWDED * cells.occupied;
    this._place = Math.max(1, Math.round(side / cells.size / 2)); // in cells
    this._width = this._isCrowded ? CROWDED_TILE * this._place * cells.size : TILE * side;
    this._squares = new Squares(xy, this._isCrowded ? side * RARE : side);
    this._landmarks = this._isCrowded ? this._squares.fitting(landmarks) : [];
    /** @type {Map<number, number[]>} rows by tile */
    this._tiles = new Map();
  }

  /** @param {Box} view */
  within([left, bottom, right, top]) {
    const last = Math.floor(2 / this._width);
    const tile = (/** @type {number} */ at) => Math.min(last, Math.max(0, Math.floor((at + 1) / this._width)));
    const rows = [...this._landmarks];
    for (let line = tile(bottom); line <= tile(top); line++) {
      for (let column = tile(left); column <= tile(right); column++) rows.push(...this._tile(column, line));
    }
    return rows;
  }

  /**
   * @param {number} column
   * @param {number} line
   * @returns {number[]}
   */
  _tile(column, line) {
    const key = column * COLUMN + line;
    let rows = this._tiles.get(key);
    if (!rows) this._tiles.set(key, (rows = this._isCrowded ? this._middles(column, line) : this._squares.fitting(this._all(column, line))));
    return rows;
  }

  /**
   * @param {number} column
   * @param {number} line
   * @returns {number[]}
   */
  _all(column, line) {
    const [left, bottom] = [column * this._width - 1, line * this._width - 1];
    return this._cells.rowsIn([left, bottom, left + this._width, bottom + this._width]);
  }

  /**
   * @param {number} column
   * @param {number} line
   * @returns {number[]} rows in the middle of dense places of a tile, the densest first, as far as there is room
   */
  _middles(column, line) {
    const width = this._place;
    const at = (/** @type {number} */ tile, /** @type {number} */ place) => (tile * CROWDED_TILE + place - 1) * width;
    const steps = [...Array(CROWDED_TILE).keys()];
    const crowds = steps.flatMap((i) => steps.map((j) => this._cells.crowd(at(column, i), at(line, j), 3 * width)));
    const dense = crowds.filter(({ n }) => n > CROWDED).sort((a, b) => b.n - a.n);
    return dense.flatMap(({ x, y }) => (this._squares.hasRoom(x, y) ? this._squares.fitting([this._cells.near(x, y)]) : []));
  }
}

/** Squares of one side that do not overlap. */
class Squares {
  /**
   * @param {Float32Array} xy
   * @param {number} side
   */
  constructor(xy, side) {
    this._xy = xy;
    this._side = side;
    /** @type {Map<number, number>} row by cell: at most one square has its middle in a cell of half its side */
    this._taken = new Map();
  }

  /**
   * @param {number[]} rows the first ones count
   * @returns {number[]} those whose squares overlap none before them; they are taken now
   */
  fitting(rows) {
    return rows.filter((row) => this._take(row));
  }

  /** @param {number} row */
  _take(row) {
    const [x, y] = [this._xy[2 * row], this._xy[2 * row + 1]];
    const fits = this.hasRoom(x, y);
    if (fits) this._taken.set(keyOf(x, y, this._side / 2), row);
    return fits;
  }

  /**
   * @param {number} x
   * @param {number} y
   * @returns {boolean} whether a square with its middle there overlaps none
   */
  hasRoom(x, y) {
    const half = this._side / 2;
    for (let dx = -2; dx <= 2; dx++) {
      for (let dy = -2; dy <= 2; dy++) {
        const other = this._taken.get(keyOf(x + dx * half, y + dy * half, half));
        if (other !== undefined && this._isOver(other, x, y)) return false;
      }
    }
    return true;
  }

  /**
   * @param {number} row
   * @param {number} x
   * @param {number} y
   */
  _isOver(row, x, y) {
    return Math.abs(this._xy[2 * row] - x) < this._side && Math.abs(this._xy[2 * row + 1] - y) < this._side;
  }
}

const COLUMN = 2 ** 26;

/**
 * @param {number} x
 * @param {number} y
 * @param {number} size of a cell; places lie within ±2
 * @returns {number} of the cell
 */
const keyOf = (x, y, size) => Math.floor((x + 4) / size) * COLUMN + Math.floor((y + 4) / size);
