/**
 * One image with those most like it.
 * @module
 */

import { imagePath } from "./api.js";
import { copy } from "./clipboard.js";
import { sayingButton } from "./collection.js";
import { el } from "./dom.js";
import { shortName } from "./grid.js";
import { thumbnail } from "./images.js";
import { hasKey, request, urlOf } from "./wire.js";

const IMAGE_PX = 512;

/** @typedef {import("./api.js").Item} Item */

/**
 * @param {string} datasetId
 * @param {Item} item
 * @param {HTMLElement} neighbours filled by the caller once they are known
 * @returns {HTMLElement[]}
 */
export function detailView(datasetId, item, neighbours) {
  const image = thumbnail(datasetId, item, IMAGE_PX);
  image.loading = "eager";
  const original = el("a", { href: urlOf(imagePath(datasetId, item.sample_id)), target: "_blank", rel: "noopener" }, "Open the file");
  if (hasKey()) original.addEventListener("click", (event) => openWithKey(event, datasetId, item));
  return [
    el("h2", { tabindex: "-1", class: "breaks" }, shortName(item.file_name)),
    el("div", { class: "hero" }, image),
    el(
      "dl",
      { class: "facts" },
      ...fact("File", item.file_name),
      ...fact("Label", item.label ?? "none"),
      ...(item.sample_id === item.file_name ? [] : fact("Id", item.sample_id)),
    ),
    el("div", { class: "row" }, sayingButton("Copy id", "Copied", () => copy(item.sample_id)), original),
    el("h3", {}, "Most similar"),
    neighbours,
  ];
}

/**
 * @param {string} name
 * @param {string} value
 */
const fact = (name, value) => [el("dt", {}, name), el("dd", { class: "breaks" }, value)];

/**
 * A link sends no key: fetch the file and show the copy.
 * @param {Event} event
 * @param {string} datasetId
 * @param {Item} item
 */
async function openWithKey(event, datasetId, item) {
  event.preventDefault();
  const tab = window.open("about:blank", "_blank");
  const response = await request(imagePath(datasetId, item.sample_id));
  const url = URL.createObjectURL(await response.blob());
  if (tab) tab.location.href = url;
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
