/**
 * Light or dark: as the system says until somebody chooses. Runs before the first paint.
 * @module
 */

const STORED = "constellate.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

/** @type {string | null} */
let chosen = localStorage.getItem(STORED);
/** @type {Set<() => void>} */
const listeners = new Set();

/** @returns {boolean} whether the page is dark now */
export const isDark = () => (chosen ? chosen === "dark" : system.matches);

/** Change to the other one and remember it. */
export function toggleTheme() {
  chosen = isDark() ? "light" : "dark";
  localStorage.setItem(STORED, chosen);
  apply();
}

/**
 * @param {() => void} listener called after each change
 */
export function onThemeChange(listener) {
  listeners.add(listener);
}

function apply() {
  if (chosen) document.documentElement.dataset.theme = chosen;
  for (const listener of listeners) listener();
}

system.addEventListener("change", apply);
apply();
