/**
 * What the page is about, apart from how it looks: the conversations, the one that is shown, the answers that are being
 * written and what went wrong with them.  `hears` is told of everything that happens:
 *
 *     changed()                 something is to be shown again
 *     grown()                   a piece came to an answer
 *     said(text, word, act)     a small notice, with a word for a button that does something about it
 *     answered(message)         the answer that is shown is finished
 */

import { Answering } from "./answering.js";
import { Conversation } from "./tree.js";

const BUSY = "An answer is being written; stop it first.";
const UNDONE = "The last turn was taken back; it stays as a branch.";
const FORK = "A new branch: what you say next goes on from here.";
const FORK_AT_QUESTION = "A new branch: get another answer, or say something else in place of this message.";
const FORK_AT_END = "This is the end of the branch: what you say next goes on from here.";

export class Talks {
  #store;
  #ask;
  #hears;
  #running = new Map();
  #problems = new Map();

  /** ask(messages, signal): the chunks of an answer; last: the id of the conversation that was shown last. */
  constructor(store, ask, hears, last) {
    this.#store = store;
    this.#ask = ask;
    this.#hears = hears;
    this.all = store.conversations();
    this.current = this.all.find(({ id }) => id === last) ?? this.#fresh();
  }

  // Conversations

  begin() {
    this.open(this.#fresh());
  }

  open(conversation) {
    if (!this.all.includes(conversation)) this.all.push(conversation);
    this.current = conversation;
    this.#tell("");
  }

  /** Open a conversation that came from elsewhere, and keep it. */
  adopt(conversation) {
    this.open(conversation);
    this.#store.save(conversation);
  }

  remove(conversation) {
    this.#running.get(conversation)?.stop();
    this.all = this.all.filter((each) => each !== conversation);
    this.#store.remove(conversation);
    if (conversation === this.current) this.open(this.all.at(-1) ?? this.#fresh());
    this.#tell(`Deleted “${conversation.title}”.`, "Bring it back", () => this.adopt(conversation));
  }

  /** Take over what another tab said; what was typed here stays. */
  follow(changed) {
    const mine = this.all.find(({ id }) => id === changed?.id);
    if (!changed || this.#running.has(mine)) return;
    const { draft, edits } = mine ?? changed;
    Object.assign(changed, { draft, edits });
    this.all = [...this.all.filter((each) => each !== mine), changed];
    if (mine && mine === this.current) this.current = changed;
    this.#hears.changed();
  }

  /** Change something about the conversation that is shown, such as its name or the draft, and keep that. */
  keep(changes) {
    Object.assign(this.current, changes);
    this.#save();
  }

  // What is said

  send(text) {
    const question = this.current.add(this.current.attachment, { role: "user", content: text });
    this.keep({ draft: "" });
    return this.answer(question.id);
  }

  /** Another answer; the one that is there stays as another version. */
  retry(id) {
    return this.answer(this.current.get(id).parent);
  }

  /** Let the model answer a message of the user. */
  async answer(question) {
    const talk = this.current;
    if (this.#running.has(talk)) return this.#tell(BUSY);
    const messages = talk.prompt(question);
    const message = talk.add(question, { role: "assistant", content: "" });
    const answering = new Answering(message, () => this.#grow(talk));
    this.#running.set(talk, answering);
    this.#problems.delete(talk);
    talk.updated = Date.now();
    this.#tell("");
    try {
      await answering.run((signal) => this.#ask(messages, signal));
    } catch (error) {
      this.fail(error, () => this.answer(question), talk);
    }
    return this.#finish(talk, message);
  }

  stop() {
    this.#running.get(this.current)?.stop();
  }

  undo() {
    const before = this.current.head;
    const message = this.current.undo();
    if (!message) return;
    if (!this.current.draft.trim()) this.current.draft = message.content;
    this.#save();
    this.#offerReturn(UNDONE, before);
  }

  /** Stand at a message, so that what is said next begins a branch there. */
  fork(id) {
    const before = this.current.head;
    const isEnd = this.current.children(id).length === 0;
    this.current.moveTo(id);
    this.#save();
    if (isEnd) this.#tell(FORK_AT_END);
    else this.#offerReturn(this.current.get(id)?.role === "user" ? FORK_AT_QUESTION : FORK, before);
  }

  /** Show the branch with a message. */
  choose(id) {
    this.current.select(id);
    this.#save();
    this.#tell("");
  }

  // Edits

  edit(id) {
    this.typeEdit(id, this.current.get(id).content);
    this.#hears.changed();
  }

  typeEdit(id, text) {
    this.current.edits.set(id, text);
    this.#save();
  }

  cancelEdit(id) {
    this.current.edits.delete(id);
    this.#save();
    this.#hears.changed();
  }

  saveEdit(id, text) {
    const talk = this.current;
    if (this.#running.has(talk)) return this.#tell(BUSY);
    talk.edits.delete(id);
    const question = talk.add(talk.get(id).parent, { role: "user", content: text });
    return this.answer(question.id);
  }

  // How things stand

  /** The answer that is being written in a conversation, if any. */
  answering(talk = this.current) {
    return this.#running.get(talk);
  }

  /** What went wrong: { talk, message, kind, retry }, of the conversation that is shown or of the page. */
  get problem() {
    return this.#problems.get(this.current) ?? this.#problems.get(null) ?? null;
  }

  /** Something went wrong; `talk` null: with the page itself. */
  fail(error, retry, talk = this.current) {
    this.#problems.set(talk, { talk, message: error.message, kind: error.kind, retry });
    this.#hears.changed();
  }

  /** Forget what went wrong with a conversation, or with the page itself (null). */
  mend(talk) {
    this.#problems.delete(talk);
    this.#hears.changed();
  }

  #fresh() {
    const unused = this.all.find(({ size, draft, name, system }) => !size && !draft && !name && !system);
    if (unused) return unused;
    const conversation = new Conversation();
    this.all.push(conversation);
    return conversation;
  }

  #finish(talk, message) {
    this.#running.delete(talk);
    // Nothing came, so there is nothing to keep; the question stays and can be asked again.
    const nothing = !message.content && !message.thought && message.finish !== "stop";
    if (nothing) talk.remove(message.id);
    this.#save(talk);
    this.#hears.changed();
    if (talk === this.current && !nothing) this.#hears.answered(message);
  }

  #grow(talk) {
    this.#save(talk);
    if (talk === this.current) this.#hears.grown();
  }

  #offerReturn(text, head) {
    const talk = this.current;
    this.#tell(text, "Go back", () => {
      talk.moveTo(head);
      this.#save(talk);
      this.open(talk);
    });
  }

  #tell(text, word, act) {
    this.#hears.said(text, word, act);
    this.#hears.changed();
  }

  #save(talk = this.current) {
    if (this.all.includes(talk)) this.#store.save(talk);
  }
}
