/**
 * Which model answers, how much it thinks, and how tokens are chosen.  A setting that was not changed is not sent, so
 * the server's own defaults hold, also those that depend on the think mode.
 */

import { el } from "./dom.js";

const INTEGER = { step: 1, integer: true };

/** The numbers: the request's name, a label, what it does, its range, and where its slider ends. */
export const NUMBERS = [
  {
    name: "temperature", label: "Temperature", min: 0, max: 2, slide: 2, step: 0.05,
    help: "0: always the likeliest token; higher: freer",
  },
  {
    name: "top_p", label: "Top p", min: 0, max: 1, slide: 1, step: 0.05,
    help: "only the likeliest tokens that together reach this; 1: all",
  },
  {
    name: "top_k", label: "Top k", min: 0, max: 2 ** 31 - 1, slide: 100, ...INTEGER,
    help: "only so many of the likeliest tokens; 0: all",
  },
  {
    name: "min_p", label: "Min p", min: 0, max: 1, slide: 1, step: 0.01,
    help: "only tokens this likely beside the likeliest; 0: all",
  },
  {
    name: "presence_penalty", label: "Presence penalty", min: -2, max: 2, slide: 2, step: 0.1,
    help: "against tokens that were used before",
  },
  {
    name: "frequency_penalty", label: "Frequency penalty", min: -2, max: 2, slide: 2, step: 0.1,
    help: "the same, for each time they were used",
  },
  {
    name: "penalty_decay", label: "Penalty decay", min: 0, max: 1, slide: 1, step: 0.001,
    help: "how slowly penalties fade with each token",
  },
  {
    name: "max_tokens", label: "Most tokens", min: 1, max: 2 ** 20, missing: "server’s", ...INTEGER,
    help: "of an answer, with its thought",
  },
  {
    name: "seed", label: "Seed", min: 0, max: Number.MAX_SAFE_INTEGER, missing: "random", ...INTEGER,
    help: "the same seed gives the same answer",
  },
];

/** The number that stands in a field; null for an empty one, undefined for what is none or out of range. */
export function numberIn(text, { min, max, integer }) {
  if (text.trim() === "") return null;
  const value = Number(text);
  const right = Number.isFinite(value) && value >= min && value <= max && (!integer || Number.isInteger(value));
  return right ? value : undefined;
}

export class Settings {
  #models = [];
  #rows;

  /** Elements: model, modelRow, think, thinkRow, numbers, reset; saved: what `save` was given last. */
  constructor(elements, saved, save) {
    Object.assign(this, elements);
    this.saved = { values: {}, ...saved };
    this.save = save;
    this.#rows = NUMBERS.map((spec) => new NumberRow(spec, (value) => this.#setNumber(spec.name, value)));
    this.numbers.replaceChildren(...this.#rows.map((row) => row.element));
    this.model.addEventListener("change", () => this.#set({ model: this.model.value }));
    this.think.addEventListener("change", () => this.#set({ think: this.think.value }));
    this.reset.addEventListener("click", () => this.#set({ values: {} }));
    this.#show();
  }

  setModels(models) {
    this.#models = models;
    this.#show();
  }

  /** What the chosen model says about itself; null before the server has answered. */
  get about() {
    const chosen = this.#models.find(({ id }) => id === this.saved.model) ?? this.#models[0];
    return chosen ? { id: chosen.id, ...chosen.receptance } : null;
  }

  /** The chosen model in a line for people. */
  get description() {
    const { id = "", version, num_layers: layers, dim } = this.about ?? {};
    const size = layers && dim ? `, ${layers} layers of width ${dim}` : "";
    return `${id}${version ? ` · RWKV-${version}${size}` : ""}`;
  }

  /** The fields of a request that come from here. */
  get request() {
    return { ...this.subject, ...this.saved.values };
  }

  /** The model and the think mode alone. */
  get subject() {
    const think = this.#modes.length ? { think: this.#mode } : {};
    return this.about ? { model: this.about.id, ...think } : {};
  }

  get #modes() {
    return this.about?.think_modes ?? [];
  }

  get #mode() {
    return this.#modes.includes(this.saved.think) ? this.saved.think : this.about.default_think ?? this.#modes[0];
  }

  #setNumber(name, value) {
    const { [name]: old, ...values } = this.saved.values;
    if (value !== null && value !== this.about?.sampling?.[name]) values[name] = value;
    this.#set({ values });
  }

  #set(change) {
    this.saved = { ...this.saved, ...change };
    this.save(this.saved);
    this.#show();
  }

  #show() {
    options(this.model, this.#models.map(({ id }) => id), this.about?.id);
    this.modelRow.hidden = this.#models.length === 0;
    options(this.think, this.#modes, this.#modes.length && this.#mode);
    this.thinkRow.hidden = this.#modes.length < 2;
    for (const row of this.#rows) row.show(this.saved.values[row.name], this.about?.sampling?.[row.name]);
    this.reset.disabled = Object.keys(this.saved.values).length === 0;
  }
}

class NumberRow {
  constructor(spec, changed) {
    this.spec = spec;
    this.name = spec.name;
    const { name, label, help, min, max, step, missing, slide } = spec;
    const about = { id: `set-${name}`, placeholder: missing, "aria-describedby": `help-${name}` };
    this.field = el("input", { type: "number", min, max, step, ...about });
    // The slider is only a quicker way for a pointer; for keyboards and screen readers there is the field.
    const ends = { min: Math.max(0, min), max: slide, step };
    this.slider = slide && el("input", { type: "range", ...ends, tabindex: "-1", "aria-hidden": "true" });
    this.help = el("p", { id: `help-${name}`, class: "help" }, help);
    const head = el("div", { class: "number-head" }, el("label", { for: `set-${name}` }, label), this.field);
    this.element = el("div", { class: "number" }, head, this.slider, this.help);
    this.field.addEventListener("change", () => this.#take(this.field.value, changed));
    this.slider?.addEventListener("input", () => this.#take(this.slider.value, changed));
  }

  show(value, standard) {
    const shown = value ?? standard;
    this.field.value = shown ?? "";
    this.element.classList.toggle("changed", value !== undefined);
    if (this.slider) this.slider.value = shown ?? this.slider.min;
    this.#complain(false);
  }

  #take(text, changed) {
    // A number field hides what it cannot read; its own check tells that apart from an empty one.
    const value = this.field.validity.badInput ? undefined : numberIn(text, this.spec);
    if (value === undefined) this.#complain(true);
    else changed(value);
  }

  #complain(wrong) {
    const { min, max, integer, help } = this.spec;
    this.field.setAttribute("aria-invalid", String(wrong));
    const kind = integer ? "whole number" : "number";
    this.help.textContent = wrong ? `Not used: it must be a ${kind} from ${min} to ${max}.` : help;
    this.help.classList.toggle("wrong", wrong);
  }
}

function options(select, names, chosen) {
  select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  select.value = chosen ?? "";
}
