/**
 * The Markdown that models write, as plain data: nothing here makes or trusts HTML.
 *
 *     parse("# Hi\n\nsome *text*")
 *     // [{ type: "heading", level: 1, spans: […] }, { type: "paragraph", spans: [{ type: "text", … }, …] }]
 *
 * A text that is still being written is fine: a code block without its end is one, a lone star is a star.
 */

import { parseSpans } from "./markdown_spans.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}(?:-[ \t]*){3,}$|^ {0,3}(?:\*[ \t]*){3,}$|^ {0,3}(?:_[ \t]*){3,}$/;
const ITEM = /^([ \t]*)([-*+]|\d{1,9}[.)])([ \t]+|$)/;
const QUOTE = /^ {0,3}> ?/;
const CELL_RULE = /^:?-+:?$/;

// Lists and quotes inside of one another, at most; a text of ten thousand ">" is no reason to hang.
const DEEPEST = 8;

/** The blocks of a text. */
export function parse(text, depth = 0) {
  return locate(text.replace(/\r\n?/g, "\n"), depth).map(({ block }) => block);
}

/**
 * The blocks of a text with the places where they begin: [{ block, at }].  What is added to the text can change the
 * last block and, where that joins the one before ("2" becomes "2. more"), this one; all others are settled.
 */
export function locate(text, depth = 0) {
  const lines = text.split("\n");
  const found = [];
  let at = 0;
  for (let line = 0; line < lines.length; ) {
    const blank = lines[line].trim() === "";
    const [block, next] = blank ? [null, line + 1] : readBlock(lines, line, depth);
    if (block) found.push({ block, at });
    for (const passed of lines.slice(line, next)) at += passed.length + 1;
    line = next;
  }
  return found;
}

function readBlock(lines, at, depth) {
  const line = lines[at];
  if (FENCE.test(line)) return readCode(lines, at);
  if (HEADING.test(line)) return [heading(line), at + 1];
  if (RULE.test(line)) return [{ type: "rule" }, at + 1];
  if (depth < DEEPEST && QUOTE.test(line)) return readQuote(lines, at, depth);
  if (depth < DEEPEST && ITEM.test(line)) return readList(lines, at, depth);
  if (isTable(lines, at)) return readTable(lines, at);
  return readParagraph(lines, at);
}

function heading(line) {
  const [, marks, text] = HEADING.exec(line);
  const closed = text.trimEnd();
  const bare = closed.endsWith("#") ? closed.slice(0, closed.search(/#+$/)).trimEnd() : closed;
  return { type: "heading", level: marks.length, spans: parseSpans(bare) };
}

function readCode(lines, start) {
  const [, fence, info] = FENCE.exec(lines[start]);
  const indent = indentOf(lines[start]);
  const body = [];
  let at = start + 1;
  for (; at < lines.length && !closes(lines[at], fence); at += 1) body.push(dedent(lines[at], indent));
  const language = info.trim().split(/\s+/)[0].slice(0, 40);
  return [{ type: "code", language, text: body.join("\n") }, at + 1];
}

function closes(line, fence) {
  const text = line.trim();
  return text.length >= fence.length && text === fence[0].repeat(text.length);
}

function readQuote(lines, start, depth) {
  let at = start;
  const body = [];
  for (; at < lines.length && QUOTE.test(lines[at]); at += 1) body.push(lines[at].replace(QUOTE, ""));
  return [{ type: "quote", blocks: parse(body.join("\n"), depth + 1) }, at];
}

function readList(lines, start, depth) {
  const first = itemOf(lines[start]);
  const items = [];
  let fence = null;
  let blank = false;
  let at = start;
  for (; at < lines.length; at += 1) {
    const line = lines[at];
    const item = fence ? null : itemOf(line);
    const inside = fence || indentOf(line) > first.indent + 1;
    if (item && !inside && item.ordered === first.ordered && !RULE.test(line)) {
      items.push([line.slice(item.width)]);
    } else if (inside || line.trim() === "") {
      items.at(-1).push(dedent(line, first.width));
    } else if (!blank && !item && !startsBlock(line)) {
      items.at(-1).push(line);
    } else {
      break;
    }
    blank = line.trim() === "";
    fence = fenceAfter(items.at(-1).at(-1), fence);
  }
  const parsed = items.map((body) => parse(body.join("\n"), depth + 1));
  return [{ type: "list", ordered: first.ordered, start: first.number, items: parsed }, at];
}

function itemOf(line) {
  const found = ITEM.exec(line);
  if (!found) return null;
  const [whole, spaces, mark] = found;
  const number = parseInt(mark, 10);
  return { indent: spaces.length, width: whole.length, ordered: !Number.isNaN(number), number: number || 0 };
}

/** The fence that is open behind this line, so that what looks like the end of a list in a code block is not. */
function fenceAfter(line, fence) {
  if (fence) return closes(line, fence) ? null : fence;
  return FENCE.exec(line)?.[1] ?? null;
}

function isTable(lines, at) {
  const rule = lines[at + 1];
  if (!lines[at].includes("|") || !rule?.includes("-")) return false;
  const cells = cellsOf(rule);
  return cells.length === cellsOf(lines[at]).length && cells.every((cell) => CELL_RULE.test(cell));
}

function readTable(lines, start) {
  const rows = [];
  let at = start + 2;
  for (; at < lines.length && lines[at].includes("|"); at += 1) rows.push(readRow(lines[at]));
  return [{ type: "table", head: readRow(lines[start]), rows }, at];
}

function readRow(line) {
  return cellsOf(line).map((cell) => parseSpans(cell));
}

function cellsOf(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inner.split("|").map((cell) => cell.trim());
}

function readParagraph(lines, start) {
  let at = start + 1;
  while (at < lines.length && lines[at].trim() !== "" && !startsBlock(lines[at])) at += 1;
  const text = lines.slice(start, at).map((line) => line.trim()).join("\n");
  return [{ type: "paragraph", spans: parseSpans(text) }, at];
}

function startsBlock(line) {
  // "1985. " in the middle of a paragraph is a year, so only a list from 1 may begin there.
  const item = itemOf(line);
  const list = item && (!item.ordered || item.number === 1) && line.length > item.width;
  return list || FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line);
}

function indentOf(line) {
  return line.length - line.trimStart().length;
}

function dedent(line, width) {
  return line.slice(Math.min(width, indentOf(line)));
}
