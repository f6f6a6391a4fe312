/* Helpers for DOM elements. */

export const byId = (id) => document.getElementById(id);

/** Sets text only if it differs, so that selections are kept and screen readers do not read it again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Creates an element with properties (including `dataset` and `aria…`) and children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "dataset") Object.assign(element.dataset, value);
    else if (key.startsWith("aria-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** Creates an SVG element with attributes (`dataset` and `text` are set as properties) and children. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "dataset") Object.assign(element.dataset, value);
    else if (key === "text") element.textContent = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** Sets an attribute only if it differs. */
export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Creates an icon. It is hidden from screen readers: text beside it or the button's label describes it. */
export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));
}

const news = [];

/** Announces text to screen readers. Texts of the same moment are joined. */
export function announce(text) {
  if (news.push(text) > 1) return;
  queueMicrotask(() => {
    byId("news").textContent = news.join(". ");
    news.length = 0;
  });
}

const TOAST_MS = 8000;

/** Shows an error message, which closes by itself or by a click. */
export function complain(text) {
  const toast = make("button", { type: "button", className: "toast", title: "Dismiss" }, text);
  const close = () => toast.remove();
  toast.addEventListener("click", close);
  setTimeout(close, TOAST_MS);
  const toasts = byId("toasts");
  for (const old of toasts.children) if (old.textContent === text) old.remove();
  toasts.append(toast);
}

/** Opens a modal dialog. Buttons with `data-close` and a click outside close it. */
export function openDialog(dialog) {
  if (!dialog.dataset.ready) {
    dialog.dataset.ready = "yes";
    for (const button of dialog.querySelectorAll("[data-close]")) button.addEventListener("click", () => dialog.close());
    // The dialog has no padding, so that a click whose target is the dialog itself is on its backdrop.
    dialog.addEventListener("pointerdown", (event) => {
      if (event.target === dialog && isOutside(dialog, event)) dialog.close();
    });
  }
  dialog.showModal();
}

function isOutside(dialog, { clientX, clientY }) {
  const { left, right, top, bottom } = dialog.getBoundingClientRect();
  return clientX < left || clientX > right || clientY < top || clientY > bottom;
}

/** Resolves the open question. */
let answer = () => {};

byId("confirm-go").addEventListener("click", () => {
  answer(true);
  byId("confirm").close();
});
// This event is dispatched one task after the dialog closes; by then another question may be open.
byId("confirm").addEventListener("close", ({ target }) => {
  if (!target.open) answer(false);
});

/** Asks for confirmation of an action that cannot be undone. */
export function confirmed(title, text, action) {
  answer(false);
  setText(byId("confirm-title"), title);
  setText(byId("confirm-text"), text);
  setText(byId("confirm-go"), action);
  openDialog(byId("confirm"));
  return new Promise((resolve) => (answer = resolve));
}
