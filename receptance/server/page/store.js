/**
 * What the browser keeps between two visits: conversations, each under a key of its own, and settings.
 * Where the storage is full or forbidden the page still works, and `trouble` is told once.
 */

import { read, write } from "./conversation_file.js";

const CONVERSATION = "receptance.conversation.";
const SETTINGS = "receptance.settings";
const DELAY = 1000;

export class Store {
  #storage;
  #trouble;
  #waiting = new Map();

  /** storage: localStorage, or null where the browser forbids it. */
  constructor(storage, trouble) {
    this.#storage = storage;
    this.#trouble = trouble;
  }

  /** All conversations; one that cannot be read is left where it is. */
  conversations() {
    const keys = Object.keys(this.#storage ?? {}).filter((key) => key.startsWith(CONVERSATION));
    return keys.map((key) => this.#read(key)).filter(Boolean);
  }

  /** A conversation that another tab has changed. */
  changed(event) {
    return event.key?.startsWith(CONVERSATION) && event.newValue ? this.#read(event.key) : null;
  }

  /** Keep a conversation; several calls in a short time write once. */
  save(conversation) {
    if (this.#waiting.has(conversation)) return;
    this.#waiting.set(conversation, setTimeout(() => this.#write(conversation), DELAY));
  }

  /** Write what is waiting, now. */
  flush() {
    for (const conversation of [...this.#waiting.keys()]) this.#write(conversation);
  }

  remove(conversation) {
    clearTimeout(this.#waiting.get(conversation));
    this.#waiting.delete(conversation);
    this.#storage?.removeItem(CONVERSATION + conversation.id);
  }

  get settings() {
    try {
      return JSON.parse(this.#storage?.getItem(SETTINGS)) ?? {};
    } catch {
      return {};
    }
  }

  set settings(settings) {
    this.#set(SETTINGS, JSON.stringify(settings));
  }

  #read(key) {
    try {
      return read(this.#storage.getItem(key));
    } catch {
      return null;
    }
  }

  #write(conversation) {
    clearTimeout(this.#waiting.get(conversation));
    this.#waiting.delete(conversation);
    this.#set(CONVERSATION + conversation.id, write(conversation));
  }

  #set(key, text) {
    try {
      if (!this.#storage) throw new Error("no storage");
      this.#storage.setItem(key, text);
    } catch {
      const tell = this.#trouble;
      this.#trouble = () => {};
      tell();
    }
  }
}

/** The browser's storage, or null where even asking for it is forbidden. */
export function browserStorage(name) {
  try {
    return window[name];
  } catch {
    return null;
  }
}
