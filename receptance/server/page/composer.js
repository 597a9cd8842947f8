/** The field in which a message is written, with its buttons: Enter sends, Shift+Enter begins a new line. */

export class Composer {
  /** Elements of the form by their names in the markup, and functions: send(text), stop(), typed(text). */
  constructor({ form, field, send, stop }, actions) {
    Object.assign(this, { form, field, sendButton: send, stopButton: stop, actions });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    stop.addEventListener("click", () => actions.stop());
    field.addEventListener("keydown", (event) => this.#key(event));
    field.addEventListener("input", () => this.#typed());
  }

  /** Show a draft, and whether an answer is being written: then there is a button to stop it instead of one to send. */
  show(draft, running) {
    const hadFocus = [this.sendButton, this.stopButton].includes(document.activeElement);
    this.running = running;
    this.sendButton.hidden = running;
    this.stopButton.hidden = !running;
    if (this.field.value !== draft) this.field.value = draft;
    if (hadFocus && document.activeElement !== this.stopButton) this.field.focus();
    this.#fit();
  }

  /** Not on a touch screen, where this would bring up the keyboard over what one wants to read. */
  focus() {
    if (!matchMedia("(pointer: coarse)").matches) this.field.focus();
  }

  #key(event) {
    // Enter that ends a choice of characters (Chinese, Japanese) is not meant for the page.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#submit();
  }

  #submit() {
    if (!this.running && this.field.value.trim()) this.actions.send(this.field.value);
  }

  #typed() {
    this.#fit();
    this.actions.typed(this.field.value);
  }

  /** As high as the text, up to what the stylesheet allows. */
  #fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight + 2}px`;
    this.sendButton.disabled = !this.field.value.trim();
  }
}
