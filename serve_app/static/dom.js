/**
 * Elements from code. Text always becomes a text node: nothing on this page parses HTML.
 * @module
 */

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * The element with this id, which `index.html` has.
 * @template {Element} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no #${id}`);
  return /** @type {T} */ (/** @type {unknown} */ (element));
}

/**
 * Make an element. `onclick` and its like are listeners, other keys attributes; `true` is an empty attribute,
 * `false` and null leave it out.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [properties]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...present(children));
  return element;
}

/**
 * Put these in place of what the element holds.
 * @param {Element} element
 * @param {...Child} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
}

/** Wait while a button is pressed: what is replaced under the pointer gets no click. */
export async function released() {
  while (document.querySelector("button:active")) await new Promise(requestAnimationFrame);
}

/**
 * Move the focus along a grid of buttons with the arrow keys; columns are read off the layout.
 * @param {HTMLElement} container whose direct children hold, or are, the buttons
 */
export function arrowKeys(container) {
  container.addEventListener("keydown", (event) => {
    const buttons = /** @type {HTMLElement[]} */ ([...container.querySelectorAll("button.tile")]);
    const at = buttons.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    if (at < 0) return;
    const top = buttons[0].offsetTop;
    const firstRow = buttons.findIndex((button) => button.offsetTop !== top);
    const columns = firstRow < 0 ? buttons.length : firstRow;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    const target = event.key === "Home" ? 0 : event.key === "End" ? buttons.length - 1 : step && at + step;
    if (target === undefined || !buttons[target]) return;
    event.preventDefault();
    buttons[target].focus();
  });
}

/**
 * @param {Child[]} children
 * @returns {(Node | string)[]}
 */
function present(children) {
  return children
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}
