/**
 * A conversation as JSON, for a file and for the browser's storage, and back with everything checked: a file may come
 * from anywhere.
 */

import { Conversation } from "./tree.js";

export const FORMAT = "receptance-conversation";
const VERSION = 1;

export const MOST_BYTES = 4 * 2 ** 20;
const MOST_MESSAGES = 10_000;
const MOST_NAME = 200;

const TEXTS = ["thought", "finish", "model", "think"];
const NUMBERS = ["thoughtSeconds", "tokens", "speed"];

/** A file that is no conversation; the message says why. */
export class FileError extends Error {}

/** The text of a file. */
export function write(conversation) {
  const { id, name, system, draft, updated, head } = conversation;
  const edits = Object.fromEntries(conversation.edits);
  const messages = [...conversation.all()];
  return JSON.stringify({ format: FORMAT, version: VERSION, id, name, system, draft, updated, head, edits, messages });
}

/** The conversation of a text that `write` made; `fresh` gives it a new id, so that it replaces no other one. */
export function read(text, { fresh = false } = {}) {
  check(text.length <= MOST_BYTES, `it is larger than ${MOST_BYTES / 2 ** 20} MB`);
  const data = parse(text);
  check(data?.format === FORMAT, "it is no conversation that was exported here");
  check(data.version === VERSION, `it has version ${data.version}, and this page reads version ${VERSION}`);
  const conversation = new Conversation({
    id: fresh ? undefined : string(data.id, "id"),
    name: string(data.name, "name").slice(0, MOST_NAME),
    system: string(data.system, "system"),
    draft: string(data.draft ?? "", "draft"),
    updated: number(data.updated, "updated"),
  });
  addMessages(conversation, data.messages);
  for (const [id, edit] of Object.entries(data.edits ?? {})) {
    if (conversation.get(id)) conversation.edits.set(id, string(edit, "edit"));
  }
  check(data.head === null || conversation.get(data.head), "it stands at a message that is missing");
  conversation.moveTo(data.head);
  return conversation;
}

function addMessages(conversation, messages) {
  check(Array.isArray(messages), "its messages are missing");
  check(messages.length <= MOST_MESSAGES, `it has more than ${MOST_MESSAGES} messages`);
  for (const message of messages) {
    const { id, parent } = message ?? {};
    check(string(id, "id") && !conversation.get(id), "two of its messages have the same id");
    // Parents come first, so there can be no circle.
    const before = conversation.get(parent);
    check(parent === null || before, "a message follows one that is missing");
    check(message.role === (before?.role === "user" ? "assistant" : "user"), "its messages are not in turns");
    conversation.add(parent, { id, ...fields(message) });
  }
}

function fields(message) {
  const kept = { role: message.role, content: string(message.content, "content") };
  for (const name of TEXTS) if (message[name] != null) kept[name] = string(message[name], name);
  for (const name of NUMBERS) if (message[name] != null) kept[name] = number(message[name], name);
  return kept;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new FileError("it is no JSON");
  }
}

function string(value, name) {
  check(typeof value === "string", `“${name}” is no text`);
  return value;
}

function number(value, name) {
  check(Number.isFinite(value), `“${name}” is no number`);
  return value;
}

function check(right, message) {
  if (!right) throw new FileError(message);
}
