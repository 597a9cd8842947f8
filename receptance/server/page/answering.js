/**
 * An answer while it is written: takes the server's chunks into a message and measures how fast they come.
 *
 *     const answering = new Answering(message, () => draw());
 *     await answering.run((signal) => api.chat(body, signal));     // answering.stop() ends it early
 */

export class Answering {
  #abort = new AbortController();
  #changed;
  #now;
  #firstPiece = null;
  #thoughtSince = null;
  #pieces = 0;
  #usage = null;

  constructor(message, changed, now = () => performance.now()) {
    this.message = message;
    this.#changed = changed;
    this.#now = now;
  }

  /** Write the answer; raises what the stream raises, except for a stop. `finish` says how it ended. */
  async run(open) {
    try {
      for await (const chunk of open(this.#abort.signal)) this.#take(chunk);
      this.message.finish ??= "stop";
    } catch (error) {
      this.message.finish = this.#abort.signal.aborted ? "stopped" : "lost";
      if (!this.#abort.signal.aborted) throw error;
    } finally {
      this.#settle();
    }
  }

  stop() {
    this.#abort.abort();
  }

  /** How far it is, for people; the server sends about one piece for a token. */
  get progress() {
    const seconds = (this.#now() - this.#firstPiece) / 1000;
    if (this.#pieces < 2 || seconds < 0.2) return "Reading …";
    const speed = (this.#pieces - 1) / seconds;
    return `${this.#pieces} tokens · ${speed < 10 ? speed.toFixed(1) : Math.round(speed)} tokens/s`;
  }

  #take({ choices, usage }) {
    this.#usage = usage ?? this.#usage;
    const choice = choices?.[0];
    if (!choice) return;
    const { content, reasoning_content: thought } = choice.delta ?? {};
    if (content || thought) this.#count();
    if (thought) this.#think(thought);
    if (content) this.#speak(content);
    if (choice.finish_reason) this.message.finish = choice.finish_reason;
    this.#changed();
  }

  #count() {
    this.#firstPiece ??= this.#now();
    this.#pieces += 1;
  }

  #think(piece) {
    this.#thoughtSince ??= this.#now();
    this.message.thought = (this.message.thought ?? "") + piece;
  }

  #speak(piece) {
    this.#endThought();
    this.message.content += piece;
  }

  #endThought() {
    if (this.#thoughtSince === null) return;
    this.message.thoughtSeconds ??= (this.#now() - this.#thoughtSince) / 1000;
  }

  #settle() {
    this.#endThought();
    const seconds = (this.#now() - this.#firstPiece) / 1000;
    const tokens = this.#usage?.completion_tokens ?? this.#pieces;
    if (tokens) this.message.tokens = tokens;
    // What came at once was not measured.
    if (tokens > 1 && seconds > 0.05) this.message.speed = (tokens - 1) / seconds;
  }
}
