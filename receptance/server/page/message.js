/**
 * One message on the page: what was said, the thought before it, other versions of it, and what can be done with it.
 *
 * `actions` has a function for each thing that a reader may do: choose, fork, retry, edit, typeEdit, saveEdit,
 * cancelEdit.
 */

import { copyButton, el, iconButton } from "./dom.js";
import { MarkdownView } from "./markdown_view.js";

const ENDS = {
  length: "Cut off: the answer reached the most tokens allowed.",
  stopped: "Stopped.",
  lost: "Cut off before its end.",
};
const WORDLESS = "The model ended its answer without a word.";

/** The view of a message; `update` shows it as it is now. */
export function messageView(message, actions) {
  return message.role === "user" ? new UserView(message, actions) : new AnswerView(message, actions);
}

class UserView {
  #text = el("div", { class: "bubble", dir: "auto" });
  #form = null;

  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.versions = new Versions(message, actions);
    this.tools = el(
      "div",
      { class: "tools" },
      this.versions.element,
      iconButton("edit", "Edit", "Edit message", () => actions.edit(message.id), { "data-testid": "edit" }),
      copyButton(() => message.content, "Copy message"),
      forkButton(message, actions),
    );
    this.element = frame(message, "You", this.#text, this.tools);
  }

  update({ siblings, edit }) {
    this.#text.textContent = this.message.content;
    this.versions.update(siblings);
    if ((edit !== undefined) !== Boolean(this.#form)) this.#showForm(edit);
  }

  #showForm(edit) {
    const editing = edit !== undefined;
    this.#form?.remove();
    this.#form = editing ? editForm(this.message, this.actions, edit) : null;
    this.#text.hidden = this.tools.hidden = editing;
    if (editing) this.#text.after(this.#form);
  }
}

function editForm({ id }, actions, text) {
  const rows = Math.min(10, text.split("\n").length + 1);
  const field = el("textarea", { "aria-label": "Edit your message", dir: "auto", rows });
  field.value = text;
  field.addEventListener("input", () => actions.typeEdit(id, field.value));
  const submit = (event) => {
    event.preventDefault();
    if (field.value.trim()) actions.saveEdit(id, field.value);
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  });
  const buttons = el(
    "div",
    { class: "edit-buttons" },
    el("button", { type: "button", class: "plain", onclick: () => actions.cancelEdit(id) }, "Cancel"),
    el("button", { type: "submit", class: "primary", "data-testid": "save-edit" }, "Send as new branch"),
  );
  return el("form", { class: "edit", onsubmit: submit }, field, buttons);
}

class AnswerView {
  #markdown = new MarkdownView();
  #thought = new Thought();
  #note = el("p", { class: "note" });
  #meta = el("span", { class: "meta" });

  constructor(message, actions) {
    this.message = message;
    this.versions = new Versions(message, actions);
    this.tools = el(
      "div",
      { class: "tools" },
      this.versions.element,
      copyButton(() => message.content, "Copy answer"),
      retryButton(message, actions),
      forkButton(message, actions),
      this.#meta,
    );
    this.element = frame(message, "Answer", this.#thought.element, this.#markdown.element, this.#note, this.tools);
  }

  update({ siblings, running }) {
    const { content, finish } = this.message;
    this.element.classList.toggle("running", running);
    this.element.classList.toggle("empty", running && !content && !this.message.thought);
    this.#thought.update(this.message, running);
    this.#markdown.update(content);
    // An answer that is not running and has no end was being written when the page was closed.
    this.#note.textContent = running ? "" : ENDS[finish ?? "lost"] ?? (content ? "" : WORDLESS);
    this.#note.hidden = !this.#note.textContent;
    this.#meta.textContent = running ? "" : metaOf(this.message);
    this.tools.hidden = running;
    this.versions.update(siblings);
  }
}

class Thought {
  #summary = el("span", {});
  #text = el("div", { class: "thought-text", dir: "auto" });

  constructor() {
    const summary = el("summary", {}, this.#summary);
    this.element = el("details", { class: "thought", "data-testid": "thought" }, summary, this.#text);
  }

  update({ thought, thoughtSeconds }, running) {
    this.element.hidden = !thought;
    if (!thought) return;
    const thinking = running && thoughtSeconds === undefined;
    this.element.classList.toggle("thinking", thinking);
    this.#summary.textContent = thinking ? "Thinking …" : `Thought${lasted(thoughtSeconds)}`;
    if (this.#text.textContent !== thought) this.#text.textContent = thought.trim();
  }
}

/** "‹ 2/3 ›" beside a message that has other versions. */
class Versions {
  #label = el("span", {});

  constructor(message, actions) {
    this.message = message;
    const step = (by) => () => actions.choose(this.siblings[this.siblings.indexOf(message.id) + by], by);
    this.back = iconButton("back", "", "Previous version", step(-1));
    this.on = iconButton("on", "", "Next version", step(1));
    const parts = [this.back, this.#label, this.on];
    this.element = el("span", { class: "versions", role: "group", "aria-label": "Versions of this message" }, ...parts);
  }

  update(siblings) {
    this.siblings = siblings;
    const at = siblings.indexOf(this.message.id) + 1;
    this.element.hidden = siblings.length < 2;
    this.#label.textContent = `${at}/${siblings.length}`;
    this.#label.setAttribute("aria-label", `Version ${at} of ${siblings.length}`);
    this.back.disabled = at === 1;
    this.on.disabled = at === siblings.length;
  }

  /** Give the focus back to the arrow that was pressed, on the version that it led to. */
  focus(by) {
    const [wanted, other] = by < 0 ? [this.back, this.on] : [this.on, this.back];
    (wanted.disabled ? other : wanted).focus();
  }
}

function frame(message, heading, ...parts) {
  const { id, role } = message;
  const title = el("h3", { class: "visually-hidden" }, heading);
  const names = { class: `message ${role}`, "data-id": id, "data-testid": `message-${role}` };
  return el("li", { ...names, tabindex: "-1" }, title, ...parts);
}

function retryButton({ id }, actions) {
  return iconButton("retry", "Retry", "Retry: another answer", () => actions.retry(id), { "data-testid": "retry" });
}

function forkButton({ id }, actions) {
  const label = "Fork: go on from here in a new branch";
  return iconButton("fork", "Fork", label, () => actions.fork(id), { "data-testid": "fork" });
}

function lasted(seconds) {
  if (seconds === undefined) return "";
  const whole = Math.max(1, Math.round(seconds));
  return whole < 60 ? ` for ${whole} s` : ` for ${Math.floor(whole / 60)} min ${whole % 60} s`;
}

function metaOf({ tokens, speed }) {
  if (!tokens) return "";
  return `${tokens} tokens${speed ? ` · ${speed < 10 ? speed.toFixed(1) : Math.round(speed)} tokens/s` : ""}`;
}
