/**
 * What can be done about a finding, as buttons that name their keys.
 * @module
 */

import { el } from "./dom.js";

/**
 * @param {string} tag that accepting puts on, empty where accepting sets a filter
 * @param {{onPrevious: () => void, onAccept: () => void, onSkip: () => void, onNext: () => void, onLeave: () => void}} actions
 *   `onLeave` to filter what has the tag away
 * @returns {HTMLElement[]}
 */
export function acts(tag, { onPrevious, onAccept, onSkip, onNext, onLeave }) {
  const title = "Filter the tagged images away, here, on the map and in exports";
  return [
    button("Previous", "K", "quiet", onPrevious),
    button(tag ? `Tag “${tag}”` : "Show only these", "A", "main", onAccept),
    button("Skip", "S", "", onSkip),
    button("Next", "J", "quiet", onNext),
    ...(tag ? [el("button", { class: "button quiet", type: "button", title, onclick: onLeave }, `Leave out “${tag}”`)] : []),
  ];
}

/**
 * @param {string} text
 * @param {string} key
 * @param {string} kind
 * @param {() => void} act
 */
const button = (text, key, kind, act) =>
  el("button", { class: `button ${kind}`, type: "button", title: `Key ${key}`, onclick: act }, text, " ", el("kbd", {}, key));
