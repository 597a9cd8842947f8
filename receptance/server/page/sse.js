/**
 * Server-sent events, out of pieces of text that are cut anywhere.
 *
 *     const events = new EventReader();
 *     events.push('data: {"a"');  // []
 *     events.push(': 1}\n\n');    // ['{"a": 1}']
 */

export class EventReader {
  #rest = "";
  #data = [];

  /** The data of the events that are complete after this piece. */
  push(piece) {
    const text = this.#rest + piece;
    // A carriage return at the end may be the first half of "\r\n".
    const usable = text.endsWith("\r") ? text.slice(0, -1) : text;
    const lines = usable.split(/\r\n|\n|\r/);
    this.#rest = lines.pop() + text.slice(usable.length);
    return lines.flatMap((line) => this.#take(line));
  }

  /** The data of an event that the end of the stream completes. */
  end() {
    return [...this.push("\n"), ...this.push("\n")];
  }

  #take(line) {
    if (line === "") {
      const event = this.#data;
      this.#data = [];
      return event.length ? [event.join("\n")] : [];
    }
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "data") this.#data.push(value);
    return [];
  }
}
