"use strict";
// Elements without HTML strings: text is always text.
{
  const SVG = "http://www.w3.org/2000/svg";
  // Paths in a square of 20, drawn as lines.
  const paths = {
    plus: "M10 4v12M4 10h12",
    menu: "M3.5 6h13M3.5 10h13M3.5 14h13",
    settings: "M3 6h8M15 6h2M3 14h2M9 14h8M11 6a2 2 0 1 0 4 0a2 2 0 1 0 -4 0M5 14a2 2 0 1 0 4 0a2 2 0 1 0 -4 0",
    copy: "M7.5 7.5h8v9h-8zM12.5 7.5v-4h-8v9h3",
    check: "M4.5 10.5l3.8 3.8l7.4 -8.2",
    again: "M15.8 10a5.8 5.8 0 1 1 -1.7 -4.1M15.8 3.2v3.4h-3.4",
    edit: "M4 16l.8 -3.2l8.6 -8.6a1.4 1.4 0 0 1 2.2 0l.2 .2a1.4 1.4 0 0 1 0 2.2l-8.6 8.6z",
    remove: "M4 6h12M8 6v-2h4v2M5.8 6l.7 10h7l.7 -10M8.6 9v4.5M11.4 9v4.5",
    left: "M12 5l-5 5l5 5",
    right: "M8 5l5 5l-5 5",
    down: "M10 4v12M5 11l5 5l5 -5",
    send: "M10 16v-12M5 9l5 -5l5 5",
    stop: "M6 6h8v8h-8z",
    next: "M4 5.5l5.5 4.5l-5.5 4.5zM11 5.5l5.5 4.5l-5.5 4.5z",
    close: "M5 5l10 10M15 5l-10 10",
  };

  function icon(name) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 20 20");
    svg.setAttribute("aria-hidden", "true");
    svg.setAttribute("class", `icon icon-${name}`);
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", paths[name]);
    svg.append(path);
    return svg;
  }

  // element("button", {class: "quiet", onclick: f}, "text", child, ...); null children and false attributes are left out.
  function element(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === false || value === null || value === undefined) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  // A button that is a picture: `label` is its name for those who don't see it, and its tooltip.
  function iconButton(name, label, onclick, attributes = {}) {
    return element("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...attributes }, icon(name));
  }

  function textButton(label, onclick, attributes = {}) {
    return element("button", { type: "button", class: "button", onclick, ...attributes }, label);
  }

  // Japanese kana or Han: a browser then takes Japanese forms of the characters, whatever the page's language.
  function languageOf(text) {
    return /[\u3040-\u30ff\u4e00-\u9fff]/.test(text) ? "ja" : "en";
  }

  // Over plain HTTP from another machine there is no navigator.clipboard: then by way of a selection.
  async function copyText(text) {
    if (navigator.clipboard) {
      try {
        await navigator.clipboard.writeText(text);
        return true;
      } catch {
        // Not allowed here: the old way.
      }
    }
    const area = element("textarea", { class: "off-screen", "aria-hidden": "true" });
    area.value = text;
    const focused = document.activeElement;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }

  // Shows on the button itself that it was copied.
  async function copyFrom(button, text) {
    if (!(await copyText(text))) return;
    button.replaceChildren(icon("check"));
    announce(iberis.texts.say("copied"));
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  }

  // For those who listen: said once, shown nowhere.
  function announce(text) {
    document.getElementById("announcement").textContent = text;
  }

  iberis.elements = { element, icon, iconButton, textButton, languageOf, copyFrom, announce };
}
