/**
 * What the page has to say beside the conversation: errors (an alert with a way to try again, and a field for the API
 * key where one is wanted), small notices with a way back, and what screen readers are told.
 */

// A longer answer is not read out as a whole; it can be read in its place.
const MOST_SPOKEN = 2000;

export class Notices {
  #retry = null;
  #undo = null;
  #shown = null;

  /**
   * Elements: alert, alertText, retry, dismiss, keyForm, keyField, notice, noticeText, noticeAction, announcer; and
   * functions: setKey(key), dismissed(problem).
   */
  constructor(elements, { setKey, dismissed }) {
    Object.assign(this, elements);
    this.retry.addEventListener("click", () => this.#retry());
    this.dismiss.addEventListener("click", () => dismissed(this.#shown));
    this.noticeAction.addEventListener("click", () => this.#undo());
    this.keyForm.addEventListener("submit", (event) => {
      event.preventDefault();
      setKey(this.keyField.value.trim());
      this.keyField.value = "";
      this.#retry();
    });
  }

  /** Show a problem ({ message, kind, retry }), or none; one that is shown already is not announced again. */
  problem(problem) {
    if (problem === this.#shown) return;
    this.#shown = problem;
    this.alert.hidden = !problem;
    this.alertText.textContent = problem?.message ?? "";
    this.#retry = problem?.retry ?? null;
    this.retry.hidden = !problem?.retry || problem.kind === "key";
    this.keyForm.hidden = problem?.kind !== "key";
    if (problem?.kind === "key") this.keyField.focus();
  }

  /** Say something small, with a button if there is something to do about it. */
  say(text, action, act) {
    this.noticeText.textContent = text;
    this.notice.hidden = !text;
    this.noticeAction.textContent = action ?? "";
    this.noticeAction.hidden = !action;
    this.#undo = act;
  }

  announce(text) {
    this.announcer.textContent = text.length > MOST_SPOKEN ? `${text.slice(0, MOST_SPOKEN)} …` : text;
  }
}
