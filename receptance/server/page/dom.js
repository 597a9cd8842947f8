/** Small helpers to build elements. Text goes in as text, never as markup. */

const SVG = "http://www.w3.org/2000/svg";

/** An element: `el("p", { class: "note", onclick: act }, "text", child)`. */
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for a drawing. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** One of the symbols of index.html. */
export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));
}

/** A button with a symbol and a word; its accessible name is `label`. */
export function iconButton(symbol, word, label, onclick, more) {
  const name = label === word ? undefined : label;
  const attributes = { type: "button", class: "quiet", "aria-label": name, title: name, onclick, ...more };
  return el("button", attributes, icon(symbol), word);
}

/** Make these the children, moving only what is out of place: what stays keeps its focus and its scrolling. */
export function place(parent, children) {
  const kept = new Set(children);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  children.forEach((child, at) => {
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null);
  });
}

/** Put a text into the clipboard, also over plain HTTP, where the clipboard's own interface is missing. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = el("textarea", { class: "visually-hidden" });
  field.value = text;
  const focused = document.activeElement;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus();
  if (!copied) throw new Error("the browser does not let the page copy");
}

/** A button that copies what `text` returns and says so for a moment. */
export function copyButton(text, label) {
  const word = el("span", {}, "Copy");
  const copy = async () => {
    word.textContent = await copyText(text()).then(() => "Copied", () => "Not allowed");
    setTimeout(() => (word.textContent = "Copy"), 1500);
  };
  return iconButton("copy", word, label, copy);
}
