/**
 * The panel with the picture of the state: asks for one after each answer while it can be seen, keeps those that were
 * drawn, and says when the picture is of another place in the conversation.
 */

import { drawPicture } from "./picture.js";

const NOTHING =
  "This model keeps no list of what was said: all it knows is in a state of fixed size, which every token changes a " +
  "little. After the first answer there is a picture of it here.";
const ELSEWHERE = "This picture is of another place in the conversations.";
const UNSEEN = "There is no picture of this place yet.";

export class StateView {
  #looks = new Map();
  #abort = null;
  #subject = null;
  #writing = false;
  #shown = null;

  /** Elements: box, status, button; ask(body, signal): the server's answer. */
  constructor({ box, status, button }, ask) {
    Object.assign(this, { box, status, button, ask });
    button.addEventListener("click", () => this.look(true));
  }

  /** What there is to look at now: the body of a request; null where nothing was said, or is still being written. */
  show(subject, writing) {
    const key = JSON.stringify([subject, writing]);
    if (key === this.#shown) return;
    this.#shown = key;
    this.#abort?.abort();
    this.#subject = subject && { key, body: subject };
    this.#writing = writing;
    this.button.hidden = !subject && !writing;
    this.button.disabled = !subject;
    this.#draw();
  }

  /** Ask for the picture, if it is not known yet or is wanted anew. */
  async look(anew = false) {
    const subject = this.#subject;
    if (!subject || (this.#looks.has(subject.key) && !anew)) return;
    this.#abort?.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    this.status.textContent = "Looking …";
    try {
      this.#looks.set(subject.key, await this.ask(subject.body, signal));
      if (subject === this.#subject) this.#draw();
    } catch (error) {
      if (!signal.aborted) this.status.textContent = `No picture: ${error.message}`;
    }
  }

  #draw() {
    const look = this.#looks.get(this.#subject?.key);
    if (!this.#subject && !this.#writing) this.box.replaceChildren();
    if (look) this.box.replaceChildren(...drawPicture(look));
    this.box.classList.toggle("stale", !look);
    this.status.textContent = this.#says(look);
  }

  #says(look) {
    if (look) return `The state after ${look.num_tokens} tokens.`;
    if (this.#writing) return "An answer is being written …";
    if (!this.#subject) return NOTHING;
    return this.box.hasChildNodes() ? ELSEWHERE : UNSEEN;
  }
}
