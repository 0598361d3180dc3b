/**
 * Colours of labels. Each theme has its own twenty, chosen greedily for the largest distance in OKLab to those
 * before it, the smallest of normal vision and simulated protanopia, deuteranopia and tritanopia counting, at a
 * contrast of 3:1 or more with the background (docs/decisions/0006-map-page.md). The first eight hold up alone.
 * @module
 */

import { isDark } from "./theme.js";

export const MAX_CLASSES = 20;
/** Slots after the classes: labels beyond the twentieth, and images without one. */
export const OTHER = MAX_CLASSES;
export const UNLABELLED = MAX_CLASSES + 1;
export const SLOTS = MAX_CLASSES + 2;

const LIGHT = [
  "#306ccc", "#e46c00", "#00480c", "#602478", "#b43c6c", "#a884b4", "#60600c", "#6c9c6c", "#6090f0", "#3c3cb4",
  "#842448", "#78549c", "#906c3c", "#a8609c", "#7878c0", "#840c00", "#903078", "#489c30", "#306c54", "#18309c",
  "#4b5563", "#8b929b",
]; // prettier-ignore
const DARK = [
  "#6ca8fc", "#c09000", "#008460", "#9054c0", "#fc789c", "#cc3c24", "#c0cc00", "#24d8e4", "#48c0f0", "#7878f0",
  "#cc486c", "#cc84cc", "#9c8448", "#fc9cc0", "#9078c0", "#f0b490", "#c0609c", "#b4b454", "#54a878", "#607830",
  "#aeb6c2", "#6f7885",
]; // prettier-ignore

/** Stops of viridis (CC0, matplotlib), so that more is farther from the ground. */
const MORE_IS_DARKER = ["#7ad151", "#2fb47c", "#1f948c", "#2a768e", "#3b528b", "#46327e", "#440154"];
const MORE_IS_BRIGHTER = ["#414487", "#355f8d", "#26828e", "#1fa187", "#44bf70", "#90d743", "#fde725"];

/** @returns {string[]} a CSS colour for each slot where slots are steps of a scale, in the present theme */
export function scaleColours() {
  const stops = (isDark() ? MORE_IS_BRIGHTER : MORE_IS_DARKER).map(rgb);
  const steps = Array.from({ length: MAX_CLASSES }, (_, step) => {
    const at = (step / (MAX_CLASSES - 1)) * (stops.length - 1);
    const [low, high] = [stops[Math.floor(at)], stops[Math.ceil(at)]];
    return `#${low.map((part, i) => Math.round(255 * (part + (at % 1) * (high[i] - part))).toString(16).padStart(2, "0")).join("")}`;
  });
  return [...steps, ...colours().slice(MAX_CLASSES)];
}

/** @returns {string[]} a CSS colour for each slot, in the present theme */
export const colours = () => (isDark() ? DARK : LIGHT);

/** @returns {string} the colour that stands out from every label, for rings */
export const ink = () => (isDark() ? "#ffffff" : "#12161c");

/** @returns {string} the map's ground (`--map` in theme.css), for the gap that parts points which overlap */
export const ground = () => (isDark() ? "#12151a" : "#fbfbfa");

/**
 * @param {string} colour as `#rrggbb`
 * @returns {[number, number, number]} in 0..1
 */
export function rgb(colour) {
  const value = parseInt(colour.slice(1), 16);
  return [(value >> 16) / 255, ((value >> 8) & 255) / 255, (value & 255) / 255];
}
