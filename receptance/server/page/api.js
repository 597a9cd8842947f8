/**
 * The server's HTTP interface, and what can go wrong with it as one clear sentence.
 *
 *     const api = new Api(document.baseURI, () => sessionStorage.getItem("key"));
 *     for await (const chunk of api.chat({ messages }, signal)) …
 */

import { EventReader } from "./sse.js";

const UNREACHABLE = "The server cannot be reached. Is it still running?";
const BROKEN_OFF = "The connection was lost in the middle of the answer. What came until then is kept.";
const NO_KEY = "This server wants an API key; enter one to go on.";
const WRONG_KEY = "The server does not accept this API key; enter another one.";
const NO_ANSWER = "The server sent something that is no answer.";

/** kind: "key" (an API key is missing or wrong), "busy" (try later), "lost" (no connection), "refused" (all others). */
export class ApiError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

export class Api {
  #base;
  #key;

  /** base: where the page is; key: a function that gives the API key, or nothing. */
  constructor(base, key) {
    this.#base = base;
    this.#key = key;
  }

  /** The models that the server offers. */
  async models() {
    const { data } = await readJson(await this.#send("v1/models"));
    if (!Array.isArray(data) || data.length === 0) throw new ApiError("refused", "The server offers no model.");
    return data;
  }

  /** A picture of the state after these messages. */
  async look(body, signal) {
    return readJson(await this.#send("v1/look", body, signal));
  }

  /** The chunks of an answer, as they come. */
  async *chat(body, signal) {
    const asked = { ...body, stream: true, stream_options: { include_usage: true } };
    const response = await this.#send("v1/chat/completions", asked, signal);
    let finished = false;
    for await (const data of events(response, signal)) {
      if (data === "[DONE]") return;
      const chunk = parseChunk(data);
      finished ||= Boolean(chunk.choices?.[0]?.finish_reason);
      yield chunk;
    }
    if (!finished) throw new ApiError("lost", BROKEN_OFF);
  }

  async #send(path, body, signal) {
    const headers = body ? { "Content-Type": "application/json" } : {};
    const key = this.#key();
    if (key) headers.Authorization = `Bearer ${key}`;
    const options = { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) };
    let response;
    try {
      response = await fetch(new URL(path, this.#base), options);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError("lost", UNREACHABLE);
    }
    if (!response.ok) throw await refusal(response, key);
    return response;
  }
}

async function* events(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const events = new EventReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      yield* done ? events.end() : events.push(value);
      if (done) return;
    }
  } catch (error) {
    if (signal?.aborted || error instanceof ApiError) throw error;
    throw new ApiError("lost", BROKEN_OFF);
  } finally {
    // Whoever stops reading early must not leave the server writing.
    reader.cancel().catch(() => {});
  }
}

function parseChunk(data) {
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch {
    throw new ApiError("refused", NO_ANSWER);
  }
  if (chunk?.error) throw new ApiError("refused", sentence(chunk.error.message));
  return chunk;
}

async function readJson(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("refused", NO_ANSWER);
  }
}

async function refusal(response, key) {
  const answer = await response.json().catch(() => ({}));
  const said = answer?.error?.message;
  if (response.status === 401) {
    return new ApiError("key", key ? WRONG_KEY : NO_KEY);
  }
  if (response.status === 429) return new ApiError("busy", busy(response.headers.get("Retry-After")));
  if (response.status === 503) return new ApiError("busy", sentence(said ?? "The server is not ready yet"));
  return new ApiError("refused", sentence(said ?? `The server answered with status ${response.status}`));
}

/** What a 429 means; Retry-After is in seconds, or a date. */
export function busy(retryAfter, now = Date.now()) {
  const isNumber = /^\d+$/.test(retryAfter ?? "");
  const seconds = isNumber ? Number(retryAfter) : Math.ceil((Date.parse(retryAfter) - now) / 1000);
  if (!(seconds > 0)) return "The server is busy; try again in a moment.";
  return `The server is busy; it asks to try again in ${seconds} ${seconds === 1 ? "second" : "seconds"}.`;
}

/** A message of the server, as a sentence with a capital and a full stop. */
export function sentence(text) {
  const trimmed = String(text).trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? "" : ".");
}
