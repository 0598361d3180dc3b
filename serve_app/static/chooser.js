/**
 * A folder below the service's dataset roots, chosen by going down and up.
 * @module
 */

import * as api from "./api.js";
import { el, fill } from "./dom.js";
import { plural } from "./words.js";

export class FolderChooser {
  /**
   * @param {HTMLElement} root
   * @param {HTMLElement} opener shows and hides it
   * @param {(path: string) => void} onChoice the folder that is open now
   */
  constructor(root, opener, onChoice) {
    this._root = root;
    this._opener = opener;
    this._onChoice = onChoice;
    this._path = "";
    this._up = el("button", { class: "button quiet", type: "button" }, "Up");
    this._here = el("strong", { class: "breaks" });
    this._list = el("ul", { class: "folders" });
    this._problem = el("p", { class: "note", role: "status" });
    fill(root, el("div", { class: "row" }, this._up, this._here), this._list, this._problem);
    opener.addEventListener("click", () => (root.hidden ? this._open(this._path) : this.close()));
  }

  /** Hide the folders. */
  close() {
    this._show(false);
  }

  /** @param {boolean} isShown */
  _show(isShown) {
    this._root.hidden = !isShown;
    this._opener.setAttribute("aria-expanded", String(isShown));
  }

  /**
   * Show what is in a folder.
   * @param {string} path empty for the roots
   * @param {string} [cursor] of a further page
   */
  async _open(path, cursor = "") {
    this._show(true);
    try {
      const page = await api.listFolders(path, cursor);
      this._path = path;
      this._here.textContent = page.path ?? "Where the service may read";
      this._up.hidden = page.path === null;
      this._up.onclick = () => this._choose(page.parent ?? "");
      const rows = page.items.map((folder) => this._row(folder));
      const more = page.next_cursor !== null && el("li", {}, this._more(path, page.next_cursor));
      if (cursor) this._list.lastElementChild?.remove();
      else fill(this._list);
      this._list.append(...rows, ...(more ? [more] : []));
      this._problem.textContent = page.items.length || cursor ? "" : "There are no folders in it.";
    } catch (error) {
      this._problem.textContent = /** @type {Error} */ (error).message;
    }
  }

  /** @param {string} path */
  _choose(path) {
    if (path) this._onChoice(path);
    return this._open(path);
  }

  /** @param {import("./api.js").Folder} folder */
  _row({ name, path, images }) {
    const seen = images ? plural(images, "image") : "";
    const open = () => (images === null ? this._onChoice(path) : this._choose(path));
    return el("li", {}, el("button", { class: "entry folder", type: "button", onclick: open }, el("span", { class: "one-line" }, name), el("span", { class: "amount" }, seen)));
  }

  /**
   * @param {string} path
   * @param {string} cursor
   */
  _more(path, cursor) {
    const more = el("button", { class: "link", type: "button" }, "More…");
    more.addEventListener("click", async () => {
      more.disabled = true;
      await this._open(path, cursor);
      more.disabled = false;
    });
    return more;
  }
}
