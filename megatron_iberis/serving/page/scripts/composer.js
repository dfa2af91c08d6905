"use strict";
// Where one writes. What is typed is kept at every key, for each conversation, until it is sent: neither a reload nor a server
// that is gone loses it.
{
  const { icon, languageOf } = iberis.elements;
  const { say } = iberis.texts;
  const touch = matchMedia("(pointer: coarse)");

  class Composer {
    // actions: send(text) -> whether it was taken; stop(); editLast()
    constructor(actions) {
      this.actions = actions;
      this.input = document.getElementById("input");
      this.button = document.getElementById("send");
      this.input.addEventListener("input", () => this.typed());
      this.input.addEventListener("keydown", (event) => this.key(event));
      this.button.onclick = () => (this.running ? actions.stop() : this.send());
    }

    // The Enter that confirms a conversion (Japanese, Chinese, Korean) belongs to it. Safari has ended the composition by
    // then, and marks that key with 229.
    key(event) {
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === "ArrowUp" && this.input.value === "" && !event.shiftKey) {
        if (this.actions.editLast()) event.preventDefault();
        return;
      }
      if (event.key !== "Enter" || event.shiftKey || event.altKey) return;
      // A phone has no other key for a new line.
      if (touch.matches && !event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      if (!this.running) this.send();
    }

    async send() {
      const text = this.input.value;
      if (!text.trim() || this.sending) return;
      this.sending = true;
      const { name } = this;
      try {
        if (!(await this.actions.send(text))) return;
      } finally {
        this.sending = false;
      }
      keep(name, "");
      if (this.input.value === text) this.set("");
    }

    typed() {
      keep(this.name, this.input.value);
      this.look();
    }

    set(text) {
      this.input.value = text;
      this.look();
    }

    // `name` is the conversation's id, or "new".
    show(name) {
      this.name = name;
      this.set(kept(name));
    }

    look(running = this.running) {
      this.running = running;
      const label = running ? say("stopKeys") : touch.matches ? say("send") : say("sendKeys");
      const wanted = running ? "stop" : "send";
      if (this.drawn !== wanted) this.button.replaceChildren(icon(wanted));
      this.drawn = wanted;
      this.button.setAttribute("aria-label", running ? say("stop") : say("send"));
      this.button.title = label;
      this.button.disabled = !running && !this.input.value.trim();
      this.button.classList.toggle("stop", Boolean(running));
      this.input.enterKeyHint = touch.matches ? "enter" : "send";
      this.input.lang = languageOf(this.input.value || (iberis.texts.language() === "ja" ? "あ" : ""));
      iberis.grow(this.input);
    }

    // Not on a phone: there it would bring up the keyboard.
    focus() {
      if (!touch.matches) this.input.focus();
    }
  }

  function kept(name) {
    try {
      return localStorage.getItem(`iberis.draft.${name}`) ?? "";
    } catch {
      return "";
    }
  }

  function keep(name, text) {
    try {
      if (text) localStorage.setItem(`iberis.draft.${name}`, text);
      else localStorage.removeItem(`iberis.draft.${name}`);
    } catch {
      // It stays in the field, at least.
    }
  }

  iberis.Composer = Composer;
  iberis.forgetDraft = (name) => keep(name, "");
}
