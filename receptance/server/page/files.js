/** Conversations out to files and in from them. */

import { FileError, MOST_BYTES, read, write } from "./conversation_file.js";
import { el } from "./dom.js";

/** Offer a conversation as a download. */
export function download(conversation) {
  const address = URL.createObjectURL(new Blob([write(conversation)], { type: "application/json" }));
  const name = conversation.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "conversation";
  el("a", { href: address, download: `${name}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/** The conversation in a file, as a new one; raises FileError with what is wrong with it. */
export async function upload(file) {
  // Before it is read: a wrong choice may be of any size.
  if (file.size > MOST_BYTES) throw new FileError(`it is larger than ${MOST_BYTES / 2 ** 20} MB`);
  return read(await file.text(), { fresh: true });
}
