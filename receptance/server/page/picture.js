/**
 * The picture of a state: how long each layer remembers, and how far the last message moved it.
 *
 *     box.replaceChildren(...drawPicture(await api.look({ messages })));
 */

import { el, svg } from "./dom.js";

const WIDTH = 320;
const LEFT = 30;
const RIGHT = 14;
const AXIS = 22;
const NAMED_LAYERS = 6;

/** Figures for a look at the state, as elements. */
export function drawPicture({ num_tokens: length, layers }) {
  return [
    figure({
      title: "Memory of each layer",
      how:
        "After so many tokens a layer has forgotten half: bars span the middle 80% of its channels, marks are the " +
        "median, the dashed line is the conversation so far.",
      drawing: drawHalfLives(layers, length),
      table: halfLifeTable(layers),
      name: "half-lives",
    }),
    figure({
      title: "Moved by the last message",
      how: "The longer the bar, the more the last message changed what this layer holds, relative to what it held.",
      drawing: layers.some(({ change }) => change != null) ? drawChanges(layers) : null,
      missing: "There is no message before the last one to compare with.",
      table: changeTable(layers),
      name: "changes",
    }),
  ];
}

function figure({ title, how, drawing, missing, table, name }) {
  const caption = el("figcaption", {}, el("h3", {}, title), el("p", {}, how));
  return el("figure", { "data-testid": name }, caption, drawing ?? el("p", { class: "missing" }, missing), table);
}

function drawHalfLives(layers, length) {
  const known = layers.map((layer) => layer.half_life).filter(Boolean);
  const axis = logAxis(known.flatMap(({ p10, p50, p90 }) => [p10, p50, p90]));
  const rows = rowsFor(layers.length);
  const bars = layers.map(({ half_life: half }, at) => half && halfLifeBar(half, at, axis, rows));
  const inside = length > axis.from && length < axis.to;
  const now = inside && svg("line", { class: "now", x1: axis.x(length), x2: axis.x(length), y1: 0, y2: rows.height });
  const parts = [...axisTicks(axis.ticks, axis.x, rows), ...layerNames(layers.length, rows), now || null, ...bars];
  return drawing(rows, summary(known), parts, "tokens");
}

function halfLifeBar({ p10, p50, p90 }, at, axis, rows) {
  const [left, middle, right] = [p10, p50, p90].map((value) => axis.x(value ?? Infinity));
  const y = rows.top(at);
  const { thick, round } = rows;
  const bar = svg("rect", { class: "span", x: left, y, width: Math.max(2, right - left), height: thick, rx: round });
  const mark = svg("rect", { class: "median", x: middle - 1.5, y: y - 1, width: 3, height: thick + 2, rx: 1.5 });
  const says = `Layer ${at}: ${tokens(p10)} to ${tokens(p90)} tokens, median ${tokens(p50)}`;
  return svg("g", {}, svg("title", {}, says), bar, mark);
}

function drawChanges(layers) {
  const values = layers.map(({ change }) => change ?? 0);
  const most = roundUp(Math.max(...values));
  const x = (value) => LEFT + (value / most) * (WIDTH - LEFT - RIGHT);
  const rows = rowsFor(layers.length);
  const bars = values.map((value, at) => {
    const size = { x: LEFT, y: rows.top(at), width: Math.max(1, x(value) - LEFT), height: rows.thick, rx: rows.round };
    return svg("g", {}, svg("title", {}, `Layer ${at}: ${percent(value)}`), svg("rect", { class: "change", ...size }));
  });
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => [part * most, percent(part * most)]);
  const strongest = values.indexOf(Math.max(...values));
  const says = `The last message changed layer ${strongest} the most, by ${percent(values[strongest])}.`;
  return drawing(rows, says, [...axisTicks(ticks, x, rows), ...layerNames(layers.length, rows), ...bars]);
}

function drawing(rows, label, parts, unit) {
  const name = unit && svg("text", { x: WIDTH - 2, y: rows.height + AXIS + 9, "text-anchor": "end" }, unit);
  const height = rows.height + AXIS + (unit ? 12 : 0);
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label }, ...parts, name || null);
}

/** Rows for the layers: thin ones where there are many. */
function rowsFor(count) {
  const step = count <= 12 ? 14 : count <= 32 ? 9 : 6;
  const thick = Math.round(step * 0.6);
  return { step, thick, round: thick / 2, height: count * step + 4, top: (at) => at * step + (step - thick) / 2 + 2 };
}

function axisTicks(ticks, x, { height }) {
  return ticks.flatMap(([value, label]) => [
    svg("line", { class: "tick", x1: x(value), x2: x(value), y1: 0, y2: height + 4 }),
    svg("text", { x: x(value), y: height + 16, "text-anchor": "middle" }, label),
  ]);
}

function layerNames(count, rows) {
  const every = Math.ceil(count / NAMED_LAYERS);
  const named = Array.from({ length: count }, (_, at) => at).filter((at) => at % every === 0);
  return named.map((at) => {
    const y = rows.top(at) + rows.thick / 2;
    return svg("text", { x: LEFT - 8, y, "text-anchor": "end", "dominant-baseline": "central" }, String(at));
  });
}

/** A logarithmic axis of whole powers of ten around the values; what lies outside is drawn at its ends. */
export function logAxis(values) {
  const logs = values.filter((value) => value > 0 && Number.isFinite(value)).map(Math.log10);
  const low = Math.max(-2, Math.floor(Math.min(0, ...logs)));
  const high = Math.min(9, Math.max(low + 2, Math.ceil(Math.max(...logs, low))));
  const x = (value) => {
    const part = (Math.log10(Math.max(value, 1e-9)) - low) / (high - low);
    return LEFT + Math.min(1, Math.max(0, part)) * (WIDTH - LEFT - RIGHT);
  };
  const every = Math.ceil((high - low) / 6);
  const powers = Array.from({ length: Math.floor((high - low) / every) + 1 }, (_, at) => low + at * every);
  return { from: 10 ** low, to: 10 ** high, x, ticks: powers.map((power) => [10 ** power, tokens(10 ** power)]) };
}

function halfLifeTable(layers) {
  const rows = layers.map(({ half_life: half }, at) => [at, tokens(half?.p10), tokens(half?.p50), tokens(half?.p90)]);
  return table("Half-lives in tokens", ["Layer", "10% of channels below", "Median", "90% of channels below"], rows);
}

function changeTable(layers) {
  const rows = layers.map(({ change }, at) => [at, change == null ? "unknown" : percent(change)]);
  return table("Change by the last message", ["Layer", "Change"], rows);
}

function table(caption, head, rows) {
  const heads = head.map((name) => el("th", { scope: "col" }, name));
  const body = rows.map((row) => el("tr", {}, ...row.map((cell) => el("td", {}, String(cell)))));
  return el("table", { class: "visually-hidden" }, el("caption", {}, caption), el("tr", {}, ...heads), ...body);
}

function summary(known) {
  const medians = known.map(({ p50 }) => p50);
  const [least, most] = [Math.min(...medians), Math.max(...medians)];
  return `The median half-lives of the layers lie between ${tokens(least)} and ${tokens(most)} tokens.`;
}

/** A number of tokens, short: 0.5, 42, 1.2k, 3M. */
export function tokens(value) {
  if (value == null || !Number.isFinite(value)) return "∞";
  const [scale, unit] = value >= 1e9 ? [1e9, "G"] : value >= 1e6 ? [1e6, "M"] : value >= 1e3 ? [1e3, "k"] : [1, ""];
  const scaled = value / scale;
  return `${scaled < 10 ? Number(scaled.toPrecision(2)) : Math.round(scaled)}${unit}`;
}

function percent(part) {
  return `${Number((part * 100).toPrecision(2))}%`;
}

/** The next of 0.01, 0.02, 0.04, 0.1, 0.2, …, so that a quarter of it is a round number. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 0.01)));
  return power * [1, 2, 4, 10].find((step) => step * power >= value * (1 - 1e-9));
}
