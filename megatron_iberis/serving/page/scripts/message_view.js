"use strict";
// One message on the page: its text, what there is to say about it, and what can be done with it.
{
  const { element, iconButton, textButton, languageOf, copyFrom } = iberis.elements;
  const { say, number } = iberis.texts;

  // While it is written, a text may end in half of a sign outside the basic plane.
  function shown(message) {
    return message.text.replace(/[\ud800-\udbff\ufffd]+$/, "");
  }

  function rate(message) {
    const tokens = message.usage?.completion;
    return tokens && message.seconds ? `${message.usage.estimated ? "≈ " : ""}${number(tokens / message.seconds, 1)}` : "";
  }

  class MessageView {
    // `page` answers for the conversation around the message: running, isLast, base, place; and does what is asked of it.
    constructor(message, page) {
      this.message = message;
      this.page = page;
      this.body = element("div", { class: "body", dir: "auto" });
      this.notice = element("div", { class: "notice" });
      this.tools = element("div", { class: "tools" });
      const name = say(message.role === "user" ? "you" : "model");
      this.root = element("article", { class: `message ${message.role}`, "aria-label": name, "data-id": message.id }, this.body, this.notice, this.tools);
      this.body.textContent = message.text;
      this.body.lang = languageOf(message.text);
    }

    // Markdown and buttons, once the message comes near the window.
    enrich() {
      if (this.rich) return;
      this.rich = true;
      this.paint(true);
      this.describe();
    }

    // The text, as far as it is there.
    paint(whole = false) {
      const { message } = this;
      const running = this.page.running(message);
      const text = running ? shown(message) : message.text;
      this.body.lang = languageOf(text);
      if (this.editing) return;
      if (message.role === "user" || this.page.base()) {
        this.body.textContent = text;
        return;
      }
      if (!this.markdown) this.body.replaceChildren();
      this.markdown ??= new iberis.markdown.Markdown(this.body);
      if (whole) this.markdown.finish(text);
      else this.markdown.show(text);
      this.body.classList.toggle("empty", text === "");
    }

    // What stands below the text: why it ended, its buttons, its figures.
    describe() {
      if (!this.rich) return;
      const { message, page } = this;
      const running = page.running(message);
      const last = page.isLast(message);
      const { finish, error, usage, seconds } = message;
      const said = JSON.stringify([running, last, page.place(message), page.base(), this.editing, message.text === "", finish, error, usage, seconds]);
      if (said === this.said) return;
      this.said = said;
      this.root.classList.toggle("last", last);
      this.root.classList.toggle("running", running);
      this.root.setAttribute("aria-busy", String(running));
      this.notice.replaceChildren(...(message.role === "assistant" ? this.noticeParts(running) : []));
      this.tools.replaceChildren(...(running || this.editing ? [] : this.toolParts()));
    }

    noticeParts(running) {
      const { message, page } = this;
      if (running) return message.text === "" ? [element("span", { class: "dots", role: "img", "aria-label": say("thinking") }, element("i"), element("i"), element("i"))] : [];
      const reason = this.reason();
      const last = page.isLast(message);
      const parts = reason && (last || message.finish === "error") ? [element("span", {}, reason)] : [];
      if (!last || this.editing) return parts;
      if (message.text === "") parts.push(textButton(say("retry"), () => page.retry(message)));
      else if (message.finish !== "stop" || page.base()) parts.push(textButton(say("continueAnswer"), () => page.continueAnswer(message)));
      return parts;
    }

    reason() {
      const { finish, error, text } = this.message;
      if (finish === "error") return say(error?.kind ?? "errorCut", { message: error?.detail ?? "" });
      if (finish === "length") return say("cutLength");
      if (finish === "stopped") return say("cutStopped");
      if (finish === null) return say("cutReload");
      return text === "" ? say("emptyAnswer") : "";
    }

    toolParts() {
      const { message, page } = this;
      const own = message.role === "user";
      const place = page.place(message);
      const copy = iconButton("copy", say("copy"), () => copyFrom(copy, message.text));
      const parts = [];
      // An answer without a word can only be asked for again, in its own place.
      if (message.text) {
        parts.push(copy);
        if (!own) parts.push(iconButton("again", say("regenerate"), () => page.regenerate(message)));
        parts.push(iconButton("edit", say(own ? "editOwn" : "editAnswer"), () => this.edit()));
      }
      if (place.count > 1) parts.push(this.branches(place));
      const speed = own ? "" : rate(message);
      if (speed) parts.push(element("span", { class: "figures", title: this.figures(speed) }, say("perSecond", { rate: speed })));
      return parts;
    }

    branches({ index, count }) {
      const { message, page } = this;
      const words = element("span", { title: say("version", { number: index + 1, count }) }, `${index + 1} / ${count}`);
      const step = (by) => () => page.step(message, by);
      return element(
        "span",
        { class: "branches" },
        iconButton("left", say("earlier"), step(-1), { disabled: index === 0 }),
        words,
        iconButton("right", say("later"), step(1), { disabled: index === count - 1 }),
      );
    }

    figures(speed) {
      const { usage, first } = this.message;
      const lines = [say("statistics", { tokens: number(usage.completion), rate: speed, first: number(first ?? 0, 2) })];
      if (usage.cached) lines.push(say("cached", { count: number(usage.cached), prompt: number(usage.prompt) }));
      return lines.join("\n");
    }

    // The text becomes a field; what was there stays as another version.
    edit() {
      const { message, page } = this;
      const field = element("textarea", { "aria-label": say("edit"), rows: "1" });
      field.value = message.text;
      const own = message.role === "user";
      const leave = () => {
        this.editing = false;
        this.markdown = undefined;
        this.body.replaceChildren();
        this.paint(true);
        this.describe();
      };
      const save = () => {
        const text = field.value;
        leave();
        if (text.trim() && (text !== message.text || own)) page.edited(message, text);
      };
      field.addEventListener("keydown", (event) => {
        if (event.isComposing || event.keyCode === 229) return;
        if (event.key === "Escape") leave();
        else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
        else return;
        event.preventDefault();
        event.stopPropagation();
      });
      const buttons = [textButton(say("cancel"), leave), textButton(say(own ? "send" : "save"), save, { class: "button primary" })];
      this.editing = true;
      this.body.replaceChildren(element("div", { class: "editor" }, field, element("div", { class: "buttons end" }, ...buttons)));
      this.describe();
      iberis.grow(field);
      field.focus();
    }
  }

  // A field as high as its text, where the browser can't do that by itself.
  iberis.grow = (field) => {
    if (CSS.supports("field-sizing", "content")) return;
    const fit = () => {
      field.style.height = "auto";
      field.style.height = `${field.scrollHeight}px`;
    };
    if (!field.dataset.grows) field.addEventListener("input", fit);
    field.dataset.grows = "yes";
    fit();
  };
  iberis.MessageView = MessageView;
  iberis.rate = rate;
}
