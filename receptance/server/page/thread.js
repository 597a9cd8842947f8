/**
 * The messages of the branch that is shown, and its scrolling: it follows a growing answer only while the reader is at
 * the end.
 */

import { place } from "./dom.js";
import { messageView } from "./message.js";

// So many pixels above the end still count as the end.
const NEAR = 60;

export class Thread {
  #views = new Map();
  #conversation = null;
  #following = true;

  /** scroller: what scrolls; list: where the messages go; toEnd: the button that leads to the end. */
  constructor({ scroller, list, toEnd }, actions) {
    this.scroller = scroller;
    this.list = list;
    this.toEnd = toEnd;
    this.actions = actions;
    scroller.addEventListener("scroll", () => this.#notice(), { passive: true });
    const resized = new ResizeObserver(() => this.#follow());
    resized.observe(list);
    resized.observe(scroller);
    toEnd.addEventListener("click", () => this.scrollToEnd());
  }

  /** Show a conversation where it stands; `running` is the message that is being written, if any. */
  show(conversation, running) {
    if (conversation !== this.#conversation) {
      this.#views.clear();
      this.#conversation = conversation;
      this.#following = true;
    }
    const views = conversation.path().map((message) => this.#view(message));
    place(this.list, views.map((view) => view.element));
    for (const view of views) this.#update(view, running);
    this.#follow();
  }

  /** Show what was added to the message that is being written. */
  grow(message) {
    const view = this.#views.get(message.id);
    if (!view?.element.isConnected) return;
    this.#update(view, message);
    this.#follow();
  }

  scrollToEnd() {
    this.#following = true;
    this.#follow();
  }

  /** Bring a message into sight. */
  reveal(id) {
    this.#following = false;
    this.#views.get(id)?.element.scrollIntoView({ block: "nearest" });
  }

  focus(id) {
    this.#views.get(id)?.element.focus({ preventScroll: true });
  }

  /** The arrow of the version that an arrow led to. */
  focusVersion(id, by) {
    this.#views.get(id)?.versions.focus(by);
  }

  focusEdit(id) {
    const field = this.#views.get(id)?.element.querySelector("textarea");
    field?.focus();
    field?.setSelectionRange(field.value.length, field.value.length);
  }

  #view(message) {
    const known = this.#views.get(message.id);
    if (known?.message === message) return known;
    const view = messageView(message, this.actions);
    this.#views.set(message.id, view);
    return view;
  }

  #update(view, running) {
    const { message } = view;
    const siblings = this.#conversation.siblings(message.id);
    const edit = this.#conversation.edits.get(message.id);
    view.update({ siblings, edit, running: message === running });
  }

  #notice() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.#following = scrollHeight - scrollTop - clientHeight < NEAR;
    this.toEnd.hidden = this.#following;
  }

  #follow() {
    if (this.#following) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#notice();
  }
}
