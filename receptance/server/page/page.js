/**
 * The page of `receptance serve`: finds the parts in index.html, brings them together with the conversations (talks.js)
 * and shows those again whenever something happened.
 */

import { Api } from "./api.js";
import { Branches } from "./branches.js";
import { Composer } from "./composer.js";
import { ConversationList } from "./conversation_list.js";
import { el } from "./dom.js";
import { download, upload } from "./files.js";
import { Notices } from "./notices.js";
import { Side, Tabs } from "./panels.js";
import { Settings } from "./settings.js";
import { StateView } from "./state_view.js";
import { Store, browserStorage } from "./store.js";
import { Talks } from "./talks.js";
import { themeButton } from "./theme_button.js";
import { Thread } from "./thread.js";

const KEY = "receptance.key";
const FULL = "The browser cannot keep more; export what you do not want to lose.";
const SUGGESTIONS = [
  "Explain in three sentences why the sky is blue.",
  "Write a short poem about a river that remembers.",
  "Give me a Python function that counts words, and a test for it.",
];

const byId = (id) => document.getElementById(id);

class Page {
  #drawing = false;
  #shown = null;

  constructor() {
    const local = browserStorage("localStorage");
    const session = browserStorage("sessionStorage");
    this.api = new Api(document.baseURI, () => session?.getItem(KEY));
    this.store = new Store(local, () => this.notices.say(FULL));
    this.saved = this.store.settings;
    this.notices = notices({
      setKey: (key) => session?.setItem(KEY, key),
      dismissed: ({ talk }) => this.talks.mend(talk),
    });
    this.settings = this.#settings();
    this.talks = this.#talks();
    themeButton(byId("theme"), local);
    this.#buildSides();
    this.#buildConversation();
    this.#listen();
    this.#show();
    this.#connect();
  }

  #talks() {
    return new Talks(this.store, (messages, signal) => this.#ask(messages, signal), {
      changed: () => this.#show(),
      grown: () => this.#drawSoon(),
      said: (...notice) => this.notices.say(...notice),
      answered: (message) => this.#answered(message),
    }, this.saved.last);
  }

  #settings() {
    const parts = {
      model: byId("model"), modelRow: byId("model-row"), think: byId("think"), thinkRow: byId("think-row"),
      numbers: byId("numbers"), reset: byId("reset"),
    };
    const save = (sampling) => {
      this.#remember({ sampling });
      this.#showSubject();
    };
    return new Settings(parts, this.saved.sampling, save);
  }

  #buildSides() {
    const side = (name, id, rest, wide, shown = () => {}) => new Side({
      side: byId(id), button: byId(`show-${id}`), scrim: byId(`scrim-${name}`), rest: [byId("center"), byId(rest)],
      wide, shown,
      saved: { get: () => this.saved[name], set: (open) => this.#remember({ [name]: open }) },
    });
    this.left = side("left", "conversations", "panel", "(min-width: 60rem)");
    this.right = side("right", "panel", "conversations", "(min-width: 75rem)", () => this.#lookIfSeen());
    this.list = new ConversationList(byId("conversation-list"), {
      open: (conversation) => this.#open(() => this.talks.open(conversation)),
      remove: (conversation) => this.talks.remove(conversation),
    });
    this.branches = new Branches(byId("branches"), (id) => this.#chooseInTree(id));
    const look = { box: byId("picture"), status: byId("look-status"), button: byId("look") };
    this.state = new StateView(look, (body, signal) => this.api.look(body, signal));
    this.tabs = new Tabs(byId("tabs"), (tab) => {
      this.#remember({ tab });
      if (this.tabs) this.#lookIfSeen();
    });
    this.tabs.select(this.saved.tab ?? "state");
  }

  #buildConversation() {
    const { talks } = this;
    this.thread = new Thread({ scroller: byId("scroller"), list: byId("thread"), toEnd: byId("to-end") }, {
      choose: (id, by) => this.#chooseVersion(id, by),
      fork: (id) => this.#act(() => talks.fork(id)),
      retry: (id) => this.#act(() => talks.retry(id)),
      edit: (id) => {
        talks.edit(id);
        this.thread.focusEdit(id);
      },
      typeEdit: (id, text) => talks.typeEdit(id, text),
      saveEdit: (id, text) => this.#act(() => talks.saveEdit(id, text)),
      cancelEdit: (id) => {
        talks.cancelEdit(id);
        this.thread.focus(id);
      },
    });
    const parts = { form: byId("composer"), field: byId("message"), send: byId("send"), stop: byId("stop") };
    this.composer = new Composer(parts, {
      send: (text) => this.#act(() => talks.send(text)),
      stop: () => talks.stop(),
      typed: (draft) => talks.keep({ draft }),
    });
    byId("suggestions").replaceChildren(...SUGGESTIONS.map((text) => this.#suggestion(text)));
  }

  #listen() {
    const { talks } = this;
    const on = (id, event, act) => byId(id).addEventListener(event, act);
    on("new", "click", () => this.#open(() => talks.begin()));
    on("undo", "click", () => this.#act(() => talks.undo()));
    on("answer", "click", () => this.#act(() => talks.answer(talks.current.head)));
    on("export", "click", () => download(talks.current));
    on("import", "click", () => byId("import-file").click());
    on("import-file", "change", (event) => this.#import(event.target));
    on("title", "input", (event) => this.#rename(event.target.value));
    on("title", "blur", () => this.#showTitle());
    on("system", "input", (event) => talks.keep({ system: event.target.value }));
    on("system", "change", () => this.#showSubject());
    document.addEventListener("keydown", (event) => event.key === "Escape" && talks.stop());
    addEventListener("storage", (event) => talks.follow(this.store.changed(event)));
    addEventListener("pagehide", () => this.store.flush());
    document.addEventListener("visibilitychange", () => document.hidden && this.store.flush());
  }

  async #connect() {
    this.talks.mend(null);
    try {
      await this.#meetModels();
    } catch (error) {
      this.talks.fail(error, () => this.#connect(), null);
    }
  }

  async #meetModels() {
    this.settings.setModels(await this.api.models());
    this.talks.mend(null);
  }

  async *#ask(messages, signal) {
    // The server may have been away when the page was opened.
    if (!this.settings.about) await this.#meetModels();
    yield* this.api.chat({ ...this.settings.request, messages }, signal);
  }

  // What is done

  /** Something after which one goes on writing. */
  #act(act) {
    act();
    this.thread.scrollToEnd();
    this.composer.focus();
  }

  #open(act) {
    this.left.done();
    this.#act(act);
  }

  #chooseVersion(id, by) {
    this.talks.choose(id);
    this.thread.reveal(id);
    this.thread.focusVersion(id, by);
  }

  /** The focus stays in the tree, unless that makes way for the conversation. */
  #chooseInTree(id) {
    const closed = this.right.done();
    if (id === null) this.talks.fork(null);
    else this.talks.choose(id);
    this.thread.reveal(id);
    if (closed) this.thread.focus(id);
  }

  #rename(text) {
    this.talks.keep({ name: text.trim() });
    this.#showTitle();
    this.#showList();
  }

  async #import(input) {
    const [file] = input.files;
    if (!file) return;
    try {
      const conversation = await upload(file);
      this.#open(() => this.talks.adopt(conversation));
    } catch (error) {
      this.talks.fail(new Error(`“${file.name}” was not imported: ${error.message}.`));
    }
    // Emptied, so that choosing the same file again is a change as well.
    input.value = "";
  }

  #answered({ content }) {
    this.notices.announce(`Answer: ${content || "nothing"}`);
    this.#lookIfSeen();
  }

  #lookIfSeen() {
    if (this.right.open && this.tabs.current === "state") this.state.look();
  }

  #remember(change) {
    this.store.settings = Object.assign(this.saved, change);
  }

  // What is shown

  #show() {
    const { current } = this.talks;
    const answering = this.talks.answering();
    const end = current.get(current.head);
    if (current !== this.#shown) this.#turnTo(current);
    this.thread.show(current, answering?.message);
    this.branches.show(current);
    byId("branch-count").textContent = current.branches > 1 ? ` ${current.branches}` : "";
    byId("welcome").hidden = Boolean(end);
    byId("unanswered").hidden = end?.role !== "user" || Boolean(answering ?? this.talks.problem?.retry);
    byId("undo").disabled = !end || Boolean(answering);
    byId("progress").textContent = answering?.progress ?? "";
    this.composer.show(current.draft, Boolean(answering));
    this.notices.problem(this.talks.problem);
    this.#showTitle();
    this.#showList();
    this.#showSubject();
  }

  #turnTo(conversation) {
    this.#shown = conversation;
    this.#remember({ last: conversation.id });
    byId("system").value = conversation.system;
  }

  #showTitle() {
    const { name, size, title } = this.talks.current;
    const field = byId("title");
    if (document.activeElement !== field) field.value = name || (size ? title : "");
    field.placeholder = title;
    document.title = `${title} – receptance`;
  }

  #showList() {
    this.list.show(this.talks.all, this.talks.current, (each) => Boolean(this.talks.answering(each)));
  }

  /** Which model answers, and what there is to look at. */
  #showSubject() {
    const { description, subject } = this.settings;
    const { current } = this.talks;
    byId("about").textContent = description;
    const writing = Boolean(this.talks.answering());
    const said = current.head !== null && !writing;
    this.state.show(said ? { ...subject, messages: current.prompt() } : null, writing);
  }

  /** Show a growing answer once for each picture of the screen, however fast its tokens come. */
  #drawSoon() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      const answering = this.talks.answering();
      if (!answering) return;
      this.thread.grow(answering.message);
      byId("progress").textContent = answering.progress;
    });
  }

  #suggestion(text) {
    const use = () => {
      this.talks.keep({ draft: text });
      this.#show();
      this.composer.focus();
    };
    return el("li", {}, el("button", { type: "button", class: "plain", onclick: use }, text));
  }
}

function notices(actions) {
  const parts = {
    alert: byId("alert"), alertText: byId("alert-text"), retry: byId("try-again"), dismiss: byId("dismiss"),
    keyForm: byId("key-form"), keyField: byId("key"), notice: byId("notice"), noticeText: byId("notice-text"),
    noticeAction: byId("notice-action"), announcer: byId("announcer"),
  };
  return new Notices(parts, actions);
}

new Page();
