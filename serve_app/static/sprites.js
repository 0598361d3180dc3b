/**
 * Small pictures in sheets, 128 in one request; the sheets that were loaded longest ago are forgotten.
 * @module
 */

const SIDE_PX = 64;
const AT_ONCE = 128;
const MOST_SHEETS = 48;
const AFTER_MS = 60;
const AGAIN_MS = 2000;

/** @typedef {{sheet: ImageBitmap, x: number, y: number, side: number}} Sprite */
/** @typedef {(ids: string[], sizePx: number, signal: AbortSignal) => Promise<Blob>} Fetch */

export class SpriteStore {
  /** @param {() => void} onLoaded */
  constructor(onLoaded) {
    this._onLoaded = onLoaded;
    /** @type {Map<number, Sprite | null>} by row; null for one that cannot be had */
    this._sprites = new Map();
    /** @type {number[][]} rows of each sheet, the oldest first */
    this._sheets = [];
    this._loading = new AbortController();
    this._isLoading = false;
    /** @type {Fetch | null} */
    this._fetch = null;
    /** @type {number[]} */
    this._wanted = [];
    /** @type {(row: number) => string} */
    this._idOf = String;
  }

  /** @param {Fetch} fetch asks for a sheet of other images */
  reset(fetch) {
    this._loading.abort();
    this._loading = new AbortController();
    for (const sprite of this._sprites.values()) if (sprite?.x === 0 && sprite.y === 0) sprite.sheet.close();
    this._sprites.clear();
    this._sheets = [];
    this._wanted = [];
    this._isLoading = false;
    this._fetch = fetch;
  }

  /**
   * @param {number} row
   * @returns {Sprite | null | undefined} undefined while it is not there
   */
  get(row) {
    return this._sprites.get(row);
  }

  /**
   * Load what is missing of these, in place of what was wanted before.
   * @param {number[]} rows
   * @param {(row: number) => string} idOf
   */
  want(rows, idOf) {
    this._wanted = rows.filter((row) => !this._sprites.has(row));
    this._idOf = idOf;
    if (!this._wanted.length || this._isLoading || !this._fetch) return;
    this._isLoading = true;
    this._load(this._fetch, this._loading.signal);
  }

  /**
   * @param {Fetch} fetch
   * @param {AbortSignal} signal
   */
  async _load(fetch, signal) {
    await new Promise((resolve) => setTimeout(resolve, AFTER_MS)); // a view that moves on wants others
    const rows = this._wanted.slice(0, AT_ONCE);
    try {
      const sheet = rows.length && !signal.aborted ? await createImageBitmap(await fetch(rows.map(this._idOf), SIDE_PX, signal)) : null;
      if (signal.aborted) return;
      if (sheet) this._keep(sheet, rows);
    } catch (error) {
      if (signal.aborted) return;
      const { status = 0 } = /** @type {{status?: number}} */ (error);
      if (status >= 400 && status < 500) for (const row of rows) this._sprites.set(row, null);
      else await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      if (signal.aborted) return;
    }
    this._isLoading = false;
    this._onLoaded();
  }

  /**
   * @param {ImageBitmap} sheet
   * @param {number[]} rows
   */
  _keep(sheet, rows) {
    const columns = Math.ceil(Math.sqrt(rows.length));
    rows.forEach((row, n) => {
      this._sprites.set(row, { sheet, x: (n % columns) * SIDE_PX, y: Math.floor(n / columns) * SIDE_PX, side: SIDE_PX });
    });
    this._sheets.push(rows);
    if (this._sheets.length <= MOST_SHEETS) return;
    const oldest = this._sheets.shift() ?? [];
    this._sprites.get(oldest[0])?.sheet.close();
    for (const row of oldest) this._sprites.delete(row);
  }
}
