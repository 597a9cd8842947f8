/**
 * A conversation as a tree: every answer that was tried again and every message that was edited is a branch of its own.
 * Nothing is taken out by going on elsewhere; `head` is the message at which the conversation stands.
 *
 *     const talk = new Conversation();
 *     const question = talk.add(null, { role: "user", content: "Hi" });
 *     talk.add(question.id, { role: "assistant", content: "Hello" });
 *     talk.path();                    // both, oldest first
 *     talk.undo();                    // back to the beginning; the branch stays
 */

const TITLE_WORDS = 7;
const TITLE_LENGTH = 60;
const EXCERPT_LENGTH = 120;

/** A name that no other conversation or message has. (`randomUUID` is missing where a page comes over plain HTTP.) */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Conversation {
  #messages = new Map();
  #children = new Map([[null, []]]);
  // Of the messages with several children, the one that was visited last: where a switch to their branch leads.
  #visited = new Map();

  constructor({ id = newId(), name = "", system = "", draft = "", updated = Date.now() } = {}) {
    this.id = id;
    // A name that somebody chose; without one the first words are the title.
    this.name = name;
    this.system = system;
    this.draft = draft;
    // Messages that are being edited, and what stands in their fields.
    this.edits = new Map();
    this.updated = updated;
    this.head = null;
  }

  get size() {
    return this.#messages.size;
  }

  get(id) {
    return this.#messages.get(id);
  }

  /** All messages, parents before children. */
  all() {
    return this.#messages.values();
  }

  /** Put a message behind another one, or at the beginning (null), and go there. */
  add(parent, message) {
    if (parent !== null && !this.#messages.has(parent)) throw new Error(`there is no message ${parent}`);
    const added = { id: newId(), ...message, parent };
    this.#messages.set(added.id, added);
    this.#children.set(added.id, []);
    this.#children.get(parent).push(added.id);
    this.moveTo(added.id);
    return added;
  }

  /** Take out a message without children, such as an answer that never began. */
  remove(id) {
    const { parent } = this.get(id);
    if (this.#children.get(id).length) throw new Error("other messages follow this one");
    this.#messages.delete(id);
    this.#children.delete(id);
    this.#children.set(parent, this.#children.get(parent).filter((other) => other !== id));
    this.#visited.delete(parent);
    if (this.head === id) this.head = parent;
  }

  /** The ids behind a message, oldest first; behind null, those that begin the conversation. */
  children(id) {
    return this.#children.get(id);
  }

  /** The ids of all versions of a message, itself among them. */
  siblings(id) {
    return this.children(this.get(id).parent);
  }

  /** The messages from the beginning to this one. */
  path(id = this.head) {
    const found = [];
    for (let message = this.get(id); message; message = this.get(message.parent)) found.push(message);
    return found.reverse();
  }

  /** Stand exactly at this message: what is said next begins a branch behind it. */
  moveTo(id) {
    this.head = id;
    for (const message of this.path()) this.#visited.set(message.parent, message.id);
  }

  /** Show the branch with this message, up to its end. */
  select(id) {
    if (this.path().some((message) => message.id === id)) return;
    let end = id;
    while (this.children(end).length) end = this.#visited.get(end) ?? this.children(end).at(-1);
    this.moveTo(end);
  }

  /** Take back the last turn; returns the message that began it, or nothing where there was none. */
  undo() {
    const last = this.path().findLast((message) => message.role === "user");
    if (last) this.moveTo(last.parent);
    return last;
  }

  /** Behind which message the next one of the user goes: not behind another one of the user. */
  get attachment() {
    const head = this.get(this.head);
    return head?.role === "user" ? head.parent : this.head;
  }

  /** How many ends the tree has. */
  get branches() {
    let ends = 0;
    for (const children of this.#children.values()) ends += children.length === 0;
    return this.size ? ends : 0;
  }

  get title() {
    const [first] = this.children(null);
    return this.name || firstWords(this.get(first)?.content ?? "") || "New conversation";
  }

  /** What the server is to read. */
  prompt(id = this.head) {
    const said = this.path(id).map(({ role, content }) => ({ role, content }));
    return this.system.trim() ? [{ role: "system", content: this.system }, ...said] : said;
  }
}

/** The beginning of a text in one line, without the marks of Markdown. */
export function excerpt(text) {
  const bare = text.slice(0, 2 * EXCERPT_LENGTH).replace(/[*`#>|]+|^\s*[-+] /gm, "");
  return bare.trim().replace(/\s+/g, " ").slice(0, EXCERPT_LENGTH);
}

/** The beginning of a text, as a title. */
function firstWords(text) {
  const words = excerpt(text).split(" ");
  const title = words.slice(0, TITLE_WORDS).join(" ");
  const whole = words.length <= TITLE_WORDS && title.length <= TITLE_LENGTH;
  return whole ? title : `${title.slice(0, TITLE_LENGTH).trimEnd()} …`;
}
