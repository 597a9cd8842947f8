/**
 * The Markdown inside of a line: code, bold, italic, links.
 *
 *     parseSpans("*so*, see [this](https://example.org)")
 *     // [{ type: "em", spans: […] }, { type: "text", text: ", see " }, { type: "link", href: …, spans: […] }]
 */

const SPECIAL = /[\\`*_[!]|https?:\/\//gi;
const LINK = /!?\[([^[\]\n]*)\]\([ \t]*<?([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)>?(?:[ \t]+"[^"\n]*")?[ \t]*\)/y;
const ADDRESS = /https?:\/\/[^\s<>"`]+/iy;
const ESCAPED = "*_`#\\";

// Emphasis inside of emphasis, at most.
const DEEPEST = 4;

/** The spans of a text. */
export function parseSpans(text, depth = 0) {
  const spans = [];
  // Delimiters that nothing closes any more: looking for them once is enough, which keeps the time linear.
  const hopeless = new Set();
  let plain = "";
  for (let at = 0; at < text.length; ) {
    const next = nextSpecial(text, at);
    plain += text.slice(at, next);
    if (next === text.length) break;
    const found = readSpan(text, next, depth, hopeless);
    if (found.span) {
      if (plain) spans.push({ type: "text", text: plain });
      plain = "";
      spans.push(found.span);
    } else {
      plain += found.text;
    }
    at = found.end;
  }
  if (plain) spans.push({ type: "text", text: plain });
  return spans;
}

function nextSpecial(text, from) {
  SPECIAL.lastIndex = from;
  return SPECIAL.exec(text)?.index ?? text.length;
}

/** What begins here: { span, end }, or { text, end } where it is only text. */
function readSpan(text, at, depth, hopeless) {
  const mark = text[at];
  const literal = { text: mark, end: at + 1 };
  if (mark === "\\") return readEscape(text, at) ?? literal;
  if (mark === "`") return readCode(text, at, hopeless);
  if (mark === "[" || mark === "!") return readLink(text, at, depth) ?? literal;
  if (mark === "*" || mark === "_") return readEmphasis(text, at, depth, hopeless);
  return readAddress(text, at) ?? literal;
}

function readEscape(text, at) {
  const next = text[at + 1];
  return next && ESCAPED.includes(next) ? { text: next, end: at + 2 } : null;
}

function readCode(text, at, hopeless) {
  const ticks = runAt(text, at);
  const literal = { text: ticks, end: at + ticks.length };
  if (hopeless.has(ticks)) return literal;
  let close = text.indexOf(ticks, literal.end);
  while (close >= 0 && runAt(text, close) !== ticks) {
    close = text.indexOf(ticks, close + runAt(text, close).length);
  }
  if (close < 0) {
    hopeless.add(ticks);
    return literal;
  }
  const inner = text.slice(literal.end, close);
  const padded = inner.startsWith(" ") && inner.endsWith(" ") && inner.trim();
  return { span: { type: "code", text: padded ? inner.slice(1, -1) : inner }, end: close + ticks.length };
}

function readEmphasis(text, at, depth, hopeless) {
  const run = runAt(text, at);
  const mark = run.slice(0, run.length >= 2 ? 2 : 1);
  const literal = { text: run, end: at + run.length };
  const from = at + mark.length;
  const inWord = isWord(text[at - 1]) && mark !== "**";
  const opens = run.length <= 3 && !inWord && !isSpace(text[literal.end]);
  if (!opens || depth >= DEEPEST || hopeless.has(mark)) return literal;
  const close = closingOf(text, from, mark);
  if (close < 0) {
    hopeless.add(mark);
    return literal;
  }
  const spans = parseSpans(text.slice(from, close), depth + 1);
  return { span: { type: mark.length === 2 ? "strong" : "em", spans }, end: close + mark.length };
}

function closingOf(text, from, mark) {
  for (let at = text.indexOf(mark[0], from); at >= 0; ) {
    const run = runAt(text, at);
    const end = at + run.length;
    const fits = run.length === mark.length || run.length === 3;
    const free = !isSpace(text[at - 1]) && (mark[0] === "*" || !isWord(text[end]));
    if (at > from && fits && free) return end - mark.length;
    at = text.indexOf(mark[0], end);
  }
  return -1;
}

function readLink(text, at, depth) {
  LINK.lastIndex = at;
  const found = LINK.exec(text);
  const href = found && safeAddress(found[2]);
  if (!href) return null;
  const [whole, label] = found;
  // A picture would be loaded from elsewhere without being asked for, so it is a link as well.
  const shown = whole.startsWith("!") ? `Image: ${label || href}` : label || href;
  const spans = depth < DEEPEST ? parseSpans(shown, DEEPEST) : [{ type: "text", text: shown }];
  return { span: { type: "link", href, spans: spans.filter((span) => span.type !== "link") }, end: at + whole.length };
}

function readAddress(text, at) {
  ADDRESS.lastIndex = at;
  const found = ADDRESS.exec(text)?.[0];
  const address = found && trimAddress(found);
  const href = address && !isWord(text[at - 1]) && safeAddress(address);
  if (!href) return null;
  return { span: { type: "link", href, spans: [{ type: "text", text: address }] }, end: at + address.length };
}

/** Without what ends a sentence, and without a bracket that was opened before the address. */
function trimAddress(address) {
  const bare = address.replace(/[.,;:!?'*_\]]+$/, "");
  return bare.endsWith(")") && !bare.includes("(") ? bare.replace(/[).,;:!?]+$/, "") : bare;
}

/** The address if it is one of the web, which keeps "javascript:" and the like out; otherwise null. */
export function safeAddress(address) {
  try {
    const url = new URL(address);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
  } catch {
    return null;
  }
}

function runAt(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return text.slice(at, end);
}

function isWord(character) {
  return character !== undefined && /[\p{L}\p{N}_]/u.test(character);
}

function isSpace(character) {
  return character === undefined || /\s/.test(character);
}
