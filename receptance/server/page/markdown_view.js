/**
 * Shows a text in Markdown, also while it grows: only the end of it is read again and only blocks that changed are
 * built again, so the time for a token does not grow with the text, and what was selected or scrolled stays as it is.
 */

import { copyButton, el, place } from "./dom.js";
import { locate } from "./markdown.js";

// Of a text that grows, so many blocks at its end may still change.
const UNSETTLED = 2;

export class MarkdownView {
  #text = "";
  // What is shown: { at, key, element } for each block, `key` telling whether it changed.
  #shown = [];

  constructor() {
    this.element = el("div", { class: "prose" });
  }

  update(text) {
    const plain = text.replace(/\r\n?/g, "\n");
    if (plain === this.#text) return;
    const settled = plain.startsWith(this.#text) ? Math.max(0, this.#shown.length - UNSETTLED) : 0;
    const from = settled ? this.#shown[settled].at : 0;
    const fresh = locate(plain.slice(from)).map(({ block, at }, index) => {
      const key = JSON.stringify(block);
      const old = this.#shown[settled + index];
      return { at: from + at, key, element: old?.key === key ? old.element : buildOuter(block) };
    });
    this.#text = plain;
    this.#shown = [...this.#shown.slice(0, settled), ...fresh];
    place(this.element, this.#shown.map(({ element }) => element));
  }
}

const BUILDERS = {
  paragraph: (block) => el("p", {}, ...spans(block.spans)),
  // Below the page's own headings; models skip levels, so all have one, and their looks tell them apart.
  heading: (block) => el("h4", { class: `h${block.level}` }, ...spans(block.spans)),
  rule: () => el("hr"),
  quote: (block) => el("blockquote", {}, ...block.blocks.map(build)),
  list: buildList,
  table: buildTable,
  code: buildCode,
};

/** A block of the text itself.  Only these find their direction: a list would overlook items that have their own. */
function buildOuter(block) {
  const element = build(block);
  element.dir = block.type === "code" ? "ltr" : "auto";
  return element;
}

function build(block) {
  return BUILDERS[block.type](block);
}

function buildList({ ordered, start, items }) {
  const rows = items.map((blocks) => el("li", {}, ...blocks.map(build)));
  return ordered ? el("ol", { start }, ...rows) : el("ul", {}, ...rows);
}

function buildTable({ head, rows }) {
  const cells = (tag, row) => row.map((cell) => el(tag, {}, ...spans(cell)));
  const body = rows.map((row) => el("tr", {}, ...cells("td", row)));
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...cells("th", head))), el("tbody", {}, ...body));
  return el("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Table" }, table);
}

function buildCode({ language, text }) {
  const code = el("pre", { dir: "ltr", tabindex: "0", "aria-label": "Code" }, el("code", {}, text));
  const bar = el("div", { class: "code-bar" }, el("span", {}, language), copyButton(() => text, "Copy code"));
  return el("div", { class: "code-block" }, bar, code);
}

function spans(list) {
  return list.map((span) => {
    if (span.type === "text") return span.text;
    if (span.type === "code") return el("code", { dir: "ltr" }, span.text);
    if (span.type === "link") return link(span);
    return el(span.type, {}, ...spans(span.spans));
  });
}

function link({ href, spans: inner }) {
  return el("a", { href, rel: "noopener noreferrer nofollow", target: "_blank" }, ...spans(inner));
}
