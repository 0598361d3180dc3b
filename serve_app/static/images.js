/**
 * Pictures from the service. Where there is an API key an `<img>` cannot ask by itself, since it sends no headers.
 * @module
 */

import { imagePath, thumbnailPath } from "./api.js";
import { el } from "./dom.js";
import { hasKey, request, urlOf } from "./wire.js";

const KEPT_BLOBS = 600;

/** @type {Map<string, Promise<string>>} */
const blobs = new Map();

/**
 * @param {string} datasetId
 * @param {import("./api.js").Item} item
 * @param {number} sizePx longer side, in CSS pixels
 * @returns {HTMLImageElement}
 */
export function thumbnail(datasetId, item, sizePx) {
  const size = Math.min(512, Math.round(sizePx * Math.min(2, devicePixelRatio)));
  return picture(thumbnailPath(datasetId, item.sample_id, size), item.file_name);
}

/**
 * @param {string} datasetId
 * @param {import("./api.js").Item} item
 * @returns {HTMLImageElement}
 */
export function fullImage(datasetId, item) {
  const image = picture(imagePath(datasetId, item.sample_id), item.file_name);
  // A browser may not show HEIC or TIFF.
  image.addEventListener("error", () => image.replaceWith(thumbnail(datasetId, item, 512)), { once: true });
  return image;
}

/**
 * @param {string} path
 * @param {string} alt
 */
function picture(path, alt) {
  const image = el("img", { alt, decoding: "async", loading: "lazy", draggable: "false" });
  image.addEventListener("error", () => image.classList.add("missing"));
  if (!hasKey()) image.src = urlOf(path);
  else
    blobUrl(path).then(
      (url) => (image.src = url),
      () => image.classList.add("missing"),
    );
  return image;
}

/**
 * @param {string} path
 * @returns {Promise<string>}
 */
function blobUrl(path) {
  const known = blobs.get(path);
  if (known) return known;
  const url = request(path)
    .then((response) => response.blob())
    .then((blob) => URL.createObjectURL(blob));
  url.catch(() => blobs.delete(path));
  blobs.set(path, url);
  if (blobs.size > KEPT_BLOBS) {
    const [oldest, old] = /** @type {[string, Promise<string>]} */ (blobs.entries().next().value);
    blobs.delete(oldest);
    old.then(URL.revokeObjectURL, () => {});
  }
  return url;
}
