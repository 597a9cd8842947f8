/** The list of conversations: the one that is shown is marked, each can be opened and deleted. */

import { el, icon } from "./dom.js";

const DAY = 24 * 60 * 60 * 1000;

export class ConversationList {
  /** list: a <ul>; open(conversation) and remove(conversation) are told what was pressed. */
  constructor(list, { open, remove }) {
    this.list = list;
    this.open = open;
    this.remove = remove;
  }

  show(conversations, current, isRunning) {
    const sorted = [...conversations].sort((a, b) => b.updated - a.updated);
    const focused = document.activeElement?.closest?.("[data-conversation]")?.dataset.conversation;
    this.list.replaceChildren(...sorted.map((each) => this.#row(each, each === current, isRunning(each))));
    if (focused && !this.list.contains(document.activeElement)) {
      this.list.querySelector(`[data-conversation="${focused}"] button`)?.focus();
    }
  }

  #row(conversation, isCurrent, runs) {
    const { id, title, updated } = conversation;
    const open = el(
      "button",
      { type: "button", class: "open", "aria-current": isCurrent && "true", onclick: () => this.open(conversation) },
      el("span", { class: "title", dir: "auto" }, title),
      el("span", { class: "when" }, runs ? "writing …" : when(updated)),
    );
    const name = { "aria-label": `Delete ${title}`, title: "Delete" };
    const remove = el(
      "button",
      { type: "button", class: "quiet", ...name, onclick: () => this.remove(conversation) },
      icon("delete"),
    );
    return el("li", { "data-conversation": id, class: isCurrent ? "current" : "" }, open, remove);
  }
}

function when(time, now = Date.now()) {
  const style = now - time < DAY ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short" };
  return new Intl.DateTimeFormat(undefined, style).format(time);
}
