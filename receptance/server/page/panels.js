/**
 * The two sides of the page, and the tabs of the right one.  On a wide screen a side stands beside the conversation; on
 * a narrow one it lies above it like a dialog: the rest cannot be reached, and Escape closes it.
 */

export class Side {
  #wide;
  #rest;
  #saved;

  /**
   * saved: { get(): boolean|undefined, set(open) }, for wide screens only; rest: what a dialog makes unreachable;
   * shown(): is told when somebody opens it.
   */
  constructor({ side, button, scrim, rest, wide, saved, shown }) {
    Object.assign(this, { side, button, scrim, shown });
    this.#rest = rest;
    this.#saved = saved;
    this.#wide = matchMedia(wide);
    this.#wide.addEventListener("change", () => this.#fit());
    button.addEventListener("click", () => (this.open ? this.close() : this.show()));
    scrim.addEventListener("click", () => this.close());
    side.addEventListener("keydown", (event) => this.#key(event));
    for (const closer of side.querySelectorAll("[data-closes]")) closer.addEventListener("click", () => this.close());
    this.#fit();
  }

  get open() {
    return !this.side.hidden;
  }

  show() {
    this.#set(true);
    if (this.#wide.matches) this.#saved.set(true);
    else this.side.querySelector("button, input, select, textarea, [tabindex='0']")?.focus();
    this.shown();
  }

  close() {
    this.#set(false);
    if (this.#wide.matches) this.#saved.set(false);
    this.button.focus();
  }

  /** After a choice was made in it: out of the way, if it lies above the conversation; returns whether it did. */
  done() {
    const above = this.open && !this.#wide.matches;
    if (above) this.#set(false);
    return above;
  }

  #fit() {
    this.#set(this.#wide.matches && this.#saved.get() !== false);
  }

  #set(open) {
    const above = open && !this.#wide.matches;
    this.side.hidden = !open;
    this.side.classList.toggle("above", above);
    this.scrim.hidden = !above;
    this.button.setAttribute("aria-expanded", String(open));
    for (const element of this.#rest) element.inert = above;
  }

  #key(event) {
    if (event.key !== "Escape" || this.#wide.matches) return;
    event.stopPropagation();
    this.close();
  }
}

/** Tabs as in the ARIA practices: arrows move between them, one is in the order of Tab. */
export class Tabs {
  /** list: an element with role "tablist"; shown(name): is told the name of the tab (its data-tab) that is shown. */
  constructor(list, shown) {
    this.tabs = [...list.querySelectorAll("[role=tab]")];
    this.shown = shown;
    for (const tab of this.tabs) tab.addEventListener("click", () => this.select(tab.dataset.tab));
    list.addEventListener("keydown", (event) => this.#key(event));
  }

  get current() {
    return this.tabs.find((tab) => tab.getAttribute("aria-selected") === "true").dataset.tab;
  }

  select(name) {
    for (const tab of this.tabs) {
      const selected = tab.dataset.tab === name;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !selected;
    }
    this.shown(name);
  }

  #key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = this.tabs.findIndex((tab) => tab.dataset.tab === this.current);
    const next = this.tabs.at((at + step) % this.tabs.length);
    this.select(next.dataset.tab);
    next.focus();
  }
}
