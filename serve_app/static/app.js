/**
 * The map page: its parts and what they tell each other.
 * @module
 */

import { place, placed } from "./address.js";
import * as api from "./api.js";
import { Datasets } from "./datasets.js";
import { byId } from "./dom.js";
import { pause } from "./events.js";
import { acceptDrops, Find } from "./find.js";
import { Findings } from "./findings.js";
import { askForKey } from "./key.js";
import { onKeys, showKeys } from "./keys.js";
import { Legend } from "./legend.js";
import { Lens } from "./lens.js";
import { Making } from "./making.js";
import { Panel } from "./panel.js";
import { Points } from "./points.js";
import { namesClusters } from "./queues.js";
import { chooseSet, freeSet, holdSet, SetChoice } from "./sets.js";
import { Stage } from "./stage.js";
import { isDark, onThemeChange, toggleTheme } from "./theme.js";
import { onKeyWanted } from "./wire.js";
import { plural } from "./words.js";

class App {
  constructor() {
    onKeyWanted(askForKey);
    /** @type {api.Status | null} */
    this._status = null;
    /** The image that the address names, and whether it was opened. */
    this._wanted = "";
    this._isResumed = false;
    /** @type {Points | null} the newest map of the set, also while it is being redrawn */
    this._map = null;
    this._loading = new AbortController();
    this.stage = new Stage({
      onOpen: (item) => this.panel.open(item),
      onLasso: (items, corners) => this._lasso(items, corners),
      onView: (view) => (view === "findings" ? this.findings.show() : this.findings?.leave()),
    });
    this.lens = new Lens({
      onFilter: (where, passing) => this._filter(where, passing),
      onColouring: (colouring) => this._colour(colouring),
      onColumns: () => this.findings.renew(),
    });
    const where = () => this.lens.where;
    const onPanel = {
      onHighlight: (/** @type {import("./panel.js").Highlight} */ highlight) => this.stage.highlight(highlight),
      onHover: (/** @type {api.Item | null} */ item) => this.stage.pointOut(item),
      onOpened: (/** @type {api.Item | null} */ item) => this._id && place({ image: item?.sample_id ?? "" }),
      onFilter: (/** @type {string} */ expression) => this.lens.bar.add(expression),
      onTagged: () => {
        this.lens.tagsChanged();
        this.findings.tagsChanged();
      },
    };
    this.panel = new Panel(byId("panel"), onPanel, where);
    const onFindings = {
      onOpen: (/** @type {api.Item} */ item) => this.panel.open(item),
      onFilter: (/** @type {string} */ expression) => this._keepCluster(expression),
      onTagged: () => this.lens.tagsChanged(),
      onClusters: (/** @type {api.Item[]} */ medoids) => this.stage.prefer(medoids),
    };
    this.findings = new Findings(byId("findings"), onFindings, this.lens.bar);
    this.legend = new Legend(byId("legend"), {
      onHidden: (slots) => this.stage.map?.hide(slots),
      onEmphasis: (slot) => this.stage.map?.emphasise(slot),
    });
    this.making = new Making(this.stage, {
      onNews: () => this._news(),
      onBack: () => void this._refresh(),
      onTell: (elements) => this.panel.tell(elements),
    });
    this.find = new Find(byId("find"), this.panel, where);
    this.sets = new SetChoice(() => this._chooseSet());
    this.datasets = new Datasets((dataset) => this._choose(dataset));
    acceptDrops(byId("drop"), (file) => this._drop(file));
    byId("theme-toggle").addEventListener("click", toggleTheme);
    onThemeChange(() => this._recolour());
    this._listenToKeys();
    this._recolour();
  }

  _listenToKeys() {
    const keys = ["c", "t", "z", "a", "s", "j", "k", "ArrowLeft", "ArrowRight", ..."123456789"];
    const shown = keys.map((key) => [key, () => this.findings.key(key) || this.panel.key(key)]);
    onKeys({
      ...Object.fromEntries(shown),
      Escape: () => this.panel.back(),
      "/": () => this.lens.bar.focus(),
      "?": showKeys,
      p: () => this.stage.pictures?.toggle(),
    });
    byId("keys-open").addEventListener("click", showKeys);
  }

  /** @returns {string} */
  get _id() {
    return this.datasets.current?.id ?? "";
  }

  /** @returns {string | undefined} the job that made the vectors that are shown */
  get _vectors() {
    const { sets = [], model_name = "" } = this._status ?? {};
    return sets.find((set) => set.model_name === model_name)?.job_id;
  }

  /** Read the datasets; while the service does not answer, keep trying. */
  async start() {
    this.panel.reset("");
    this.legend.show(null);
    for (let pauseMs = 1000; !(await this._loaded()); pauseMs = Math.min(2 * pauseMs, 15_000)) await pause(pauseMs);
  }

  /** @returns {Promise<boolean>} */
  async _loaded() {
    try {
      await this.datasets.load();
      return true;
    } catch (error) {
      const { message } = /** @type {Error} */ (error);
      this.stage.say({ title: "The datasets could not be read", text: `${message} This page keeps trying.` });
      return false;
    }
  }

  /** @param {api.Dataset | null} dataset */
  _choose(dataset) {
    this._status = null;
    this._map = null;
    this._wanted = placed().dataset === dataset?.id ? placed().image : "";
    this._isResumed = false;
    if (placed().dataset && placed().dataset !== dataset?.id) chooseSet("");
    this.lens.choose(dataset?.id ?? "");
    place({ dataset: dataset?.id ?? "" });
    this.panel.reset(dataset?.id ?? "");
    this.findings.choose(dataset?.id ?? "");
    this.making.choose(dataset);
    this.find.enable(dataset, false);
    this._show(null);
    if (dataset) this._refresh();
    else
      this.stage.say({
        title: "Start with a folder of images",
        text: "Constellate reads it, computes a vector for each image, and lays the images out on a map: what looks alike lies together.",
        action: "Add a folder…",
        onAction: () => this.datasets.openForm(),
      });
  }

  _chooseSet() {
    this.lens.bar.dropRegions();
    this._choose(this.datasets.current);
  }

  /** Read what the dataset has and show it. */
  async _refresh() {
    const id = this._id;
    this._loading.abort();
    this._loading = new AbortController();
    const { signal } = this._loading;
    try {
      const status = await api.embeddingStatus(id);
      if (signal.aborted) return;
      if (!this.sets.show(status.sets ?? [])) {
        this.lens.bar.dropRegions();
        return void this._refresh();
      }
      this._status = status;
      this.making.show(status);
      this.find.enable(this.datasets.current, status.has_embeddings);
      const points = status.has_reduction ? await Points.read(await api.coordinates(id, signal)) : null;
      if (signal.aborted) return;
      if (points && this._map?.isElsewhere(points)) this.lens.bar.dropRegions();
      this._map = points ?? this._map;
      this._show(points);
      if (points?.count) this.stage.say(null);
      else this.making.sayWhatIsMissing(status);
    } catch (error) {
      if (!signal.aborted) this.stage.say({ title: "The map could not be read", text: /** @type {Error} */ (error).message, action: "Try again", onAction: () => this._refresh() });
    }
  }

  /** @param {Points | null} points */
  _show(points) {
    const colouring = this.lens.take(points);
    this.stage.load(this._id, points, colouring, this.lens.where);
    this.legend.filter(null);
    this.legend.show(colouring);
    this.panel.highlight();
    this._resume(points);
  }

  /**
   * Open the image that the address names, or ask again for its words, once there are vectors.
   * @param {Points | null} points
   */
  _resume(points) {
    if (this._isResumed || !this._status?.has_embeddings) return;
    this._isResumed = true;
    const row = points && this._wanted ? points.rowOf(this._wanted) : -1;
    if (points && row >= 0) this.panel.open(points.item(row));
    else this.find.again();
    if (placed().finding || this.findings.isShown) this.stage.show("findings");
  }

  /** @param {string} expression that chooses a cluster */
  _keepCluster(expression) {
    this.stage.showImages();
    this.lens.bar.replace(namesClusters, expression);
  }

  /**
   * @param {string} where
   * @param {Uint8Array | null} passing
   */
  _filter(where, passing) {
    const { sets = [], model_name } = this._status ?? {};
    const hasRegion = where.includes("inside(");
    if (hasRegion && model_name) holdSet(model_name); // whose map the region is of
    if (!hasRegion && freeSet() && sets.length && sets[0].model_name !== model_name) return this._chooseSet(); // it was made meanwhile
    this.stage.filter(where, passing);
    this.legend.filter(passing);
    this.findings.refresh();
    this.lens.bar.complain("");
  }

  /** @param {import("./colouring.js").Colouring | null} colouring */
  _colour(colouring) {
    if (colouring) this.stage.map?.colourBy(colouring);
    this.legend.show(colouring);
  }

  /** There may be other vectors or another map. */
  async _news() {
    const before = this._vectors;
    this.lens.readColumns(); // a job notes what it read of the images
    await this._refresh();
    if (this._vectors !== before) this.findings.choose(this._id);
  }

  /**
   * @param {api.Item[]} items
   * @param {import("./lasso.js").Place[]} corners as the service counts
   */
  _lasso(items, corners) {
    const numbers = corners.flat().map((number) => Number(number.toPrecision(7)));
    this.panel.collect({
      title: plural(items.length, "image"),
      note: "Inside the lasso.",
      items,
      filter: `inside(${numbers.join(", ")})`,
      fileName: `${this.datasets.current?.name} selection`,
      empty: "No points lie inside the lasso. Draw it around some: hold Shift and drag.",
    });
  }

  /** @param {File} file */
  _drop(file) {
    if (this._status?.has_embeddings) this.find.byImage(file);
    else this.making.complain("Compute the vectors first: search compares with them.");
  }

  _recolour() {
    const toggle = byId("theme-toggle");
    toggle.textContent = isDark() ? "Light" : "Dark";
    toggle.setAttribute("aria-label", `Use the ${isDark() ? "light" : "dark"} theme`);
    this.stage.map?.recolour();
    this.legend.render();
  }
}

const app = new App();
// For the console and the browser tests.
Object.assign(globalThis, { constellate: app });
app.start();
