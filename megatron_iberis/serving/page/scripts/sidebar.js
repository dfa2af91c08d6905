"use strict";
// The conversations, the latest first. On a phone they lie over the page, elsewhere beside it.
{
  const { element, iconButton } = iberis.elements;
  const { say } = iberis.texts;
  const narrow = matchMedia("(max-width: 760px)");
  const at = (id) => document.getElementById(id);

  class Sidebar {
    // actions: open(id), rename(id, title), remove(id), isRunning(id)
    constructor(actions) {
      this.actions = actions;
      this.rows = new Map(); // id -> [what it shows, its row]
      at("sidebar-open").onclick = () => this.toggle(true, true);
      at("sidebar-close").onclick = () => this.toggle(false, true);
      at("shade").onclick = () => this.toggle(false);
      narrow.addEventListener("change", () => this.toggle(this.wanted()));
      this.toggle(this.wanted());
    }

    wanted() {
      return !narrow.matches && iberis.settings.get("sidebar");
    }

    get covers() {
      return narrow.matches && document.body.classList.contains("with-sidebar");
    }

    toggle(open, asked = false) {
      document.body.classList.toggle("with-sidebar", open);
      at("sidebar").inert = !open;
      at("main").inert = this.covers;
      if (!asked) return;
      if (!narrow.matches) iberis.settings.set("sidebar", open);
      at(open ? "sidebar-close" : "sidebar-open").focus();
    }

    // After something was chosen: on a phone the list makes room for it.
    leave() {
      if (narrow.matches) this.toggle(false);
    }

    show(conversations, current) {
      const before = this.rows;
      this.rows = new Map();
      for (const conversation of conversations) {
        const { id, title } = conversation;
        const shown = JSON.stringify([title, id === current, this.actions.isRunning(id), iberis.texts.language()]);
        const [same, row] = before.get(id) ?? [];
        this.rows.set(id, [shown, shown === same ? row : this.row(conversation, id === current)]);
      }
      at("conversations").replaceChildren(...[...this.rows.values()].map(([, row]) => row));
    }

    row({ id, title }, current) {
      const name = title || say("untitled");
      const open = element("button", { type: "button", class: "open", title: name, "aria-current": current ? "true" : null, onclick: () => this.actions.open(id) }, name);
      const row = element(
        "div",
        { class: `conversation${current ? " current" : ""}${this.actions.isRunning(id) ? " running" : ""}` },
        open,
        iconButton("edit", `${say("rename")}: ${name}`, () => this.rename(row, id, name)),
        iconButton("remove", `${say("remove")}: ${name}`, () => this.actions.remove(id, name)),
      );
      return row;
    }

    rename(row, id, name) {
      const field = element("input", { type: "text", "aria-label": say("titleOf"), maxlength: "200" });
      field.value = name;
      let left = false;
      const leave = (save) => {
        if (left) return;
        left = true;
        this.actions.rename(id, save ? field.value.trim() : null);
      };
      field.addEventListener("keydown", (event) => {
        if (event.isComposing || event.keyCode === 229) return;
        if (event.key === "Enter") leave(true);
        if (event.key === "Escape") leave(false);
        if (event.key === "Escape") event.stopPropagation();
      });
      field.addEventListener("blur", () => leave(true));
      this.rows.delete(id);
      row.replaceChildren(field);
      field.select();
      field.focus();
    }
  }

  iberis.Sidebar = Sidebar;
}
