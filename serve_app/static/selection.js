/**
 * Which tiles of a grid are selected, by pointer and by key.
 * @module
 */

/** @typedef {import("./api.js").Item} Item */

export class Selection {
  /** @param {() => void} onChange */
  constructor(onChange) {
    this._onChange = onChange;
    /** @type {Map<string, Item>} */
    this._items = new Map();
    /** @type {HTMLElement | null} where a range begins */
    this._anchor = null;
  }

  /** @returns {Item[]} in the order in which they were selected */
  get items() {
    return [...this._items.values()];
  }

  /** @param {string} sampleId */
  has(sampleId) {
    return this._items.has(sampleId);
  }

  /**
   * Take a click that selects: with Ctrl or ⌘ one tile, with Shift all up to it from the last one.
   * @param {MouseEvent} event
   * @param {Item} item
   * @returns {boolean} whether it was such a click
   */
  click(event, item) {
    const tile = /** @type {HTMLElement} */ (event.currentTarget);
    if (event.shiftKey) this._range(tile);
    else if (event.ctrlKey || event.metaKey) this.toggle(tile, item);
    else return false;
    event.preventDefault();
    return true;
  }

  /**
   * @param {HTMLElement} tile
   * @param {Item} item
   */
  toggle(tile, item) {
    this._set(tile, item, !this.has(item.sample_id));
    this._anchor = tile;
    this._onChange();
  }

  /** Select nothing. */
  clear() {
    for (const tile of document.querySelectorAll(".tile[aria-pressed='true']")) tile.setAttribute("aria-pressed", "false");
    this._items.clear();
    this._anchor = null;
    this._onChange();
  }

  /** @param {HTMLElement} tile */
  _range(tile) {
    const tiles = /** @type {HTMLElement[]} */ ([...(tile.closest(".panel, .list")?.querySelectorAll("button.tile") ?? [])]);
    const [from, to] = [Math.max(0, tiles.indexOf(this._anchor ?? tile)), tiles.indexOf(tile)].sort((a, b) => a - b);
    for (const one of tiles.slice(from, to + 1)) one.dispatchEvent(new CustomEvent("select-tile", { detail: this }));
    this._anchor = tile;
    this._onChange();
  }

  /**
   * @param {HTMLElement} tile
   * @param {Item} item
   * @param {boolean} isSelected
   */
  _set(tile, item, isSelected) {
    tile.setAttribute("aria-pressed", String(isSelected));
    if (isSelected) this._items.set(item.sample_id, item);
    else this._items.delete(item.sample_id);
  }

  /**
   * Select one of a range.
   * @param {HTMLElement} tile
   * @param {Item} item
   */
  include(tile, item) {
    this._set(tile, item, true);
  }
}
