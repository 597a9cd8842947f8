/**
 * All branches of a conversation as a drawn tree: a row for each message, lines to what it follows, the branch that is
 * shown in colour.  Arrow keys go through the rows, Enter shows the branch of one.
 */

import { el, svg } from "./dom.js";
import { excerpt } from "./tree.js";

const ROW = 30;
const RADIUS = 4.5;
const INSET = 10;
const WIDEST = 132;
const GAP = 18;

/**
 * Where each message stands: [{ id, lane, parent }], parents first; `parent` is the row of the message before.
 * Only where a message has several versions do they move one lane to the right, so a branch is a straight line.
 * A conversation with several first messages has a row for its beginning, with the id null.
 */
export function layOut(conversation) {
  const rows = [];
  const first = conversation.children(null);
  const waiting = (first.length > 1 ? [null] : first).map((id) => ({ id, lane: 0, parent: null }));
  while (waiting.length) {
    const next = waiting.pop();
    const row = rows.push(next) - 1;
    const children = conversation.children(next.id);
    const lane = children.length > 1 ? next.lane + 1 : next.lane;
    waiting.push(...children.map((id) => ({ id, lane, parent: row })).reverse());
  }
  return rows;
}

export class Branches {
  #focused = null;

  /** box: an empty element; choose(id): shows the branch of a message, or the beginning (null). */
  constructor(box, choose) {
    this.box = box;
    this.choose = choose;
    box.addEventListener("keydown", (event) => this.#key(event));
  }

  show(conversation) {
    const rows = layOut(conversation);
    const shown = new Set([null, ...conversation.path().map((message) => message.id)]);
    const hadFocus = this.box.contains(document.activeElement);
    const gap = Math.min(GAP, WIDEST / Math.max(1, ...rows.map((row) => row.lane)));
    const items = rows.map((row) => this.#item(row, conversation, shown, gap));
    const tree = el("ul", { role: "tree", "aria-label": "Messages of all branches" }, ...items);
    this.box.replaceChildren(draw(rows, conversation, shown, gap), tree);
    this.#makeReachable(items, conversation.head);
    if (hadFocus) this.#items.find((item) => item.tabIndex === 0)?.focus();
  }

  get #items() {
    return [...this.box.querySelectorAll("[role=treeitem]")];
  }

  #item({ id, lane }, conversation, shown, gap) {
    const { role = "user", content = "Beginning" } = conversation.get(id) ?? {};
    const words = excerpt(content) || "(nothing yet)";
    const item = el(
      "li",
      {
        role: "treeitem",
        class: `branch-row ${role}${shown.has(id) ? " shown" : ""}${conversation.head === id ? " head" : ""}`,
        "aria-level": lane + 1,
        "aria-selected": String(shown.has(id)),
        "aria-label": label(id, role, words, conversation),
        "data-id": id ?? "",
        tabindex: "-1",
        title: content.slice(0, 300),
        onclick: () => this.#pick(id),
      },
      el("span", { dir: "auto" }, words),
    );
    item.style.paddingInlineStart = `${INSET + lane * gap + 14}px`;
    return item;
  }

  #pick(id) {
    this.#focused = id;
    this.choose(id);
  }

  /** One row is in the order of Tab: the one that was used last, or where the conversation stands. */
  #makeReachable(items, head) {
    const named = (id) => items.find((item) => item.dataset.id === (id ?? ""));
    const item = named(this.#focused) ?? named(head) ?? items[0];
    if (item) item.tabIndex = 0;
  }

  #key(event) {
    const items = this.#items;
    const at = items.indexOf(document.activeElement);
    const goal = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (goal !== undefined) this.#focus(items, Math.max(0, Math.min(goal, items.length - 1)));
    else if (event.key === "Enter" || event.key === " ") items[at].click();
    else return;
    event.preventDefault();
  }

  #focus(items, at) {
    for (const item of items) item.tabIndex = -1;
    items[at].tabIndex = 0;
    items[at].focus();
    this.#focused = items[at].dataset.id;
  }
}

function label(id, role, words, conversation) {
  if (id === null) return "Beginning";
  const versions = conversation.siblings(id);
  const version = versions.length > 1 ? `, version ${versions.indexOf(id) + 1} of ${versions.length}` : "";
  return `${role === "user" ? "You" : "Answer"}: ${words}${version}`;
}

function draw(rows, conversation, shown, gap) {
  const x = (row) => INSET + row.lane * gap;
  const y = (at) => at * ROW + ROW / 2;
  const lines = rows.map((row, at) => {
    const before = rows[row.parent];
    if (!before) return null;
    const bend = Math.min(8, gap);
    const turn = before.lane === row.lane ? `V${y(at)}` : `V${y(at) - bend}q0 ${bend} ${bend} ${bend}H${x(row)}`;
    return svg("path", { d: `M${x(before)} ${y(row.parent)}${turn}`, class: shown.has(row.id) ? "shown" : "" });
  });
  // What is shown lies on top of the grey lines that begin at the same message.
  const ordered = lines.filter(Boolean).sort((a, b) => a.classList.contains("shown") - b.classList.contains("shown"));
  const dots = rows.map((row, at) => {
    const kind = `${conversation.get(row.id)?.role ?? ""}${shown.has(row.id) ? " shown" : ""}`;
    return svg("circle", { cx: x(row), cy: y(at), r: RADIUS, class: kind });
  });
  const size = { width: INSET + WIDEST + RADIUS, height: rows.length * ROW };
  return svg("svg", { class: "branch-lines", "aria-hidden": "true", ...size }, ...ordered, ...dots);
}
