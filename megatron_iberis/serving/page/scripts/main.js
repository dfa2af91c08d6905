"use strict";
// The page: puts the parts together and does what they ask for.
{
  const { settings, store, texts, exchange, elements } = iberis;
  const { Tree, newConversation, titleFrom } = iberis.tree;
  const { say, number } = texts;
  const at = (id) => document.getElementById(id);

  let tree = new Tree(newConversation());
  let conversations = [];
  let kept = true;
  let saveError = "";
  let base = false; // the model has learned no conversations
  let back = false; // the server has come back: said for a while

  const answers = new iberis.Answers({
    grown(message, rate) {
      thread.grown(message);
      if (tree.messages.get(message.id) === message) at("rate").textContent = Number.isFinite(rate) ? say("perSecond", { rate: number(rate, 1) }) : "";
    },
    changed(message) {
      thread.changed(message);
      if (message.text !== "") elements.announce(say("answerBegins"));
      showState();
    },
    ended(of, message, error) {
      thread.changed(message);
      if (error) watch.failed(error.kind);
      else elements.announce(say("answerEnds"));
      at("rate").textContent = "";
      showState();
      showList(true);
    },
    saveFailed,
  });
  const watch = new iberis.ServerWatch((before) => {
    if (watch.ready && before !== "ok" && before !== "unknown") {
      back = true;
      setTimeout(() => {
        back = false;
        showNotices();
      }, 4000);
    }
    if (Boolean(watch.model?.base) !== base) {
      // A base model's text is shown as it is written.
      base = !base;
      thread.clear();
    }
    show();
  });

  // What a message may know of the conversation around it, and ask for.
  const thread = new iberis.ThreadView(
    at("scroller"),
    at("thread"),
    {
      running: (message) => answers.isRunning(message),
      isLast: (message) => tree.childOf(message.id) === undefined,
      base: () => base,
      place(message) {
        const siblings = tree.siblings(message);
        return { index: siblings.indexOf(message), count: siblings.length };
      },
      step(message, by) {
        const siblings = tree.siblings(message);
        tree.choose(siblings[siblings.indexOf(message) + by] ?? message);
        save([]);
        show();
      },
      async regenerate(message) {
        if (await ready()) answer(tree, message.parent);
      },
      retry: writeOn,
      continueAnswer: writeOn,
      async edited(message, text) {
        if (message.role === "assistant") {
          save([tree.add(message.parent, "assistant", text, { finish: "stop", model: message.model })]);
          show();
          return;
        }
        const edited = tree.add(message.parent, "user", text, { finish: "stop" });
        save([edited]);
        show();
        if (await ready()) answer(tree, edited.id);
      },
    },
    (stuck) => {
      at("to-end").hidden = stuck;
    },
  );

  const composer = new iberis.Composer({
    async send(text) {
      const to = tree;
      if (answers.inConversation(to.conversation.id) || !(await ready())) return false;
      const message = to.add(to.path().at(-1)?.id ?? null, "user", text, { finish: "stop" });
      to.conversation.title ||= titleFrom(text);
      save([message], to);
      thread.stuck = true;
      composer.name = to.conversation.id;
      answer(to, message.id);
      named();
      return true;
    },
    stop: () => answers.stop(tree.conversation.id),
    editLast() {
      const last = tree.path().findLast((message) => message.role === "user");
      thread.views.get(last?.id)?.edit();
      return Boolean(last);
    },
  });

  async function ready() {
    return watch.ready || (await watch.check());
  }

  // A new answer below `parent`; one that is being written in this conversation ends.
  function answer(to, parent) {
    answers.stop(to.conversation.id);
    run(to, to.add(parent, "assistant", ""));
  }

  async function writeOn(message) {
    const to = tree;
    if (await ready()) run(to, message);
  }

  function run(to, message) {
    answers.run(to, message, watch.model);
    save([message], to);
    if (to === tree) show();
    showList();
  }

  async function save(messages, to = tree) {
    try {
      await store.put(to.conversation, messages);
      saveError = "";
    } catch (error) {
      saveFailed(error);
    }
    await showList(true);
  }

  function saveFailed(error) {
    saveError = String(error?.message || error);
    showNotices();
  }

  function show() {
    const path = tree.path();
    const { conversation } = tree;
    thread.show(path);
    at("greeting").hidden = path.length > 0;
    at("title").textContent = conversation.title;
    document.title = conversation.title ? `${conversation.title} · Saint Iberis` : "Saint Iberis";
    if (thread.stuck) thread.toEnd();
    showState();
  }

  function showState() {
    composer.look(Boolean(answers.inConversation(tree.conversation.id)));
    composer.input.placeholder = say(base ? (tree.messages.size ? "placeholderOn" : "placeholderBase") : "placeholder");
    composer.input.setAttribute("aria-label", say("messageFor"));
    at("greeting-text").textContent = say(base ? "greetingBase" : "greeting");
    at("model-name").textContent = watch.model?.id ?? "";
    const used = tree.path().findLast((message) => message.usage?.total)?.usage.total;
    const length = watch.model?.contextLength;
    const meter = elements.element("span", { class: "meter" }, elements.element("i"));
    meter.firstChild.style.width = `${Math.min(100, (100 * (used ?? 0)) / (length ?? 1))}%`;
    meter.classList.toggle("full", Boolean(length && used > 0.9 * length));
    const words = length ? say("context", { used: number(used ?? 0), length: number(length) }) : say("contextOnly", { used: number(used ?? 0) });
    at("context").replaceChildren(...(used ? [words, ...(length ? [meter] : [])] : []));
    at("context").title = say("contextMore");
    showNotices();
  }

  function showNotices() {
    const lines = [];
    const line = (text, kind = "", button = null) => lines.push(elements.element("p", { class: `line ${kind}` }, elements.element("span", {}, text), button));
    if (watch.status === "loading") line(say("loading"), "waiting");
    if (watch.status === "gone") line(say("gone"), "bad");
    if (watch.status === "failed") line(watch.reason ? say("failed", { reason: watch.reason }) : say("failedSilent"), "bad");
    if (watch.needsKey) line(say("needsKey"), "", elements.textButton(say("enterKey"), () => iberis.dialogs.openSettings("key")));
    if (back) line(say("back"), "good");
    if (base && !tree.messages.size) line(say("baseNote"));
    if (!kept) line(say("notKept"), "bad");
    if (saveError) line(say("notSaved", { reason: saveError }), "bad");
    const said = lines.map((each) => each.textContent).join("\n");
    if (said === at("notices").dataset.said) return;
    at("notices").dataset.said = said;
    at("notices").replaceChildren(...lines);
  }

  async function showList(read = false) {
    if (read) conversations = await store.list().catch((error) => (saveFailed(error), conversations));
    if (!at("conversations").querySelector("input")) sidebar.show(conversations, tree.conversation.id);
  }

  // The address names the conversation, so that a reload comes back to it.
  function named() {
    const name = tree.messages.size ? tree.conversation.id : "new";
    history.replaceState(null, "", name === "new" ? location.pathname + location.search : `#${name}`);
    return name;
  }

  function openTree(next) {
    tree = next;
    thread.clear();
    composer.show(named());
    show();
    showList();
  }

  function startNew() {
    openTree(new Tree(newConversation()));
    sidebar.leave();
    composer.focus();
  }

  async function open(id) {
    // An answer that is being written here goes on in its own tree, not in what was last saved of it.
    const running = answers.inConversation(id)?.tree;
    const conversation = running ? null : await store.conversation(id);
    if (running) openTree(running);
    else if (conversation) openTree(new Tree(conversation, await store.messages(id)));
    else startNew();
    sidebar.leave();
  }

  const sidebar = new iberis.Sidebar({
    open,
    isRunning: (id) => Boolean(answers.inConversation(id)),
    async rename(id, title) {
      at("conversations").replaceChildren();
      const conversation = id === tree.conversation.id ? tree.conversation : (answers.inConversation(id)?.tree.conversation ?? (await store.conversation(id)));
      if (title && conversation) {
        conversation.title = title;
        await store.put(conversation);
      }
      await showList(true);
      if (id === tree.conversation.id) show();
    },
    async remove(id, title) {
      if (!(await iberis.dialogs.ask(say("removeOne", { title }), say("removeOneMore"), say("remove")))) return;
      await forget([id], () => store.remove(id));
    },
  });

  // Answers that are being written end first: their last save would bring back what was removed.
  async function forget(ids, remove) {
    for (const id of ids) {
      answers.stop(id);
      iberis.forgetDraft(id);
    }
    while (ids.some((id) => answers.inConversation(id))) await new Promise((resolve) => setTimeout(resolve, 20));
    await remove();
    await showList(true);
    if (ids.includes(tree.conversation.id)) startNew();
  }

  async function exportAll() {
    const all = [];
    for (const conversation of await store.list()) all.push({ conversation, messages: await store.messages(conversation.id) });
    const blob = new Blob([JSON.stringify(exchange.exported(all), null, 1)], { type: "application/json" });
    const link = elements.element("a", { href: URL.createObjectURL(blob), download: `iberis-conversations-${new Date().toISOString().slice(0, 10)}.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    return say("exported", { count: number(all.length) });
  }

  async function importText(text) {
    let read;
    try {
      read = exchange.imported(text, await store.list());
      for (const { conversation, messages } of read.taken) await store.put(conversation, messages);
    } catch (error) {
      const reason = error instanceof exchange.ImportError ? say(error.message) : String(error?.message || error);
      return say("importFailed", { reason });
    }
    await showList(true);
    return say("imported", { count: number(read.taken.length), known: number(read.known) });
  }

  async function removeAll() {
    const all = await store.list();
    if (!all.length || !(await iberis.dialogs.ask(say("removeAllAsk", { count: number(all.length) }), say("removeOneMore"), say("remove")))) return "";
    await forget(all.map(({ id }) => id), store.clear);
    return "";
  }

  function keys(event) {
    if (event.isComposing || event.keyCode === 229 || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      if (sidebar.covers) sidebar.toggle(false, true);
      else answers.stop(tree.conversation.id);
    }
    if (event.key.toLowerCase() === "o" && event.shiftKey && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      startNew();
    }
  }

  function wire() {
    const icons = { new: "plus", "sidebar-close": "menu", "sidebar-open": "menu", "settings-open": "settings", "settings-close": "close", "to-end": "down" };
    for (const [id, name] of Object.entries(icons)) at(id).prepend(elements.icon(name));
    at("new").onclick = startNew;
    at("to-end").onclick = () => thread.toEnd();
    document.addEventListener("keydown", keys);
    iberis.dialogs.wire({ keyChanged: () => watch.checkAnew(), exportAll, importText, removeAll });
    settings.onChange((name) => {
      if (name !== "language") return;
      texts.fill();
      thread.clear();
      show();
      showList();
    });
    store.onOtherTab(async (id) => {
      await showList(true);
      // What is being edited here is not thrown away for what was said there.
      const busy = answers.inConversation(id) || document.querySelector(".editor");
      if (id === tree.conversation.id && !busy) open(id);
    });
    // The page may be closed in the middle of an answer: what there is of it stays.
    addEventListener("pagehide", () => {
      for (const { tree: of, message } of answers.running.values()) answers.save(of.conversation, message);
    });
  }

  async function start() {
    settings.load();
    texts.fill();
    wire();
    kept = await store.open();
    await showList(true);
    const id = location.hash.slice(1);
    if (id && conversations.some((conversation) => conversation.id === id)) await open(id);
    else startNew();
    await watch.check();
  }

  iberis.app = { path: () => tree.path() };
  iberis.started = start();
}
