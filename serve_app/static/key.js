/** Ask for the API key. @module */

import { byId } from "./dom.js";
import { Problem } from "./wire.js";

/**
 * @param {boolean} refused whether the key given before is wrong
 * @returns {Promise<string>} rejected when the dialog is dismissed; the next request asks again
 */
export function askForKey(refused) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("key"));
  const form = /** @type {HTMLFormElement} */ (byId("key-form"));
  const field = /** @type {HTMLInputElement} */ (form.elements.namedItem("key"));
  byId("key-error").textContent = refused ? "The service refused this key." : "";
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    const settle = () =>
      dialog.returnValue === "given" ? resolve(field.value) : reject(new Problem("The service wants its API key.", 401));
    dialog.addEventListener("close", settle, { once: true });
  });
}
