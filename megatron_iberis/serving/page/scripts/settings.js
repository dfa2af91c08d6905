"use strict";
// What the user has set, in localStorage; the key only in sessionStorage, which ends with the tab.
{
  const defaults = {
    temperature: 0.8,
    topP: 1,
    topK: 50,
    maxTokens: 512, // null: as long as the context allows
    system: "",
    language: "system",
    theme: "system",
    sidebar: true,
  };
  const ranges = { temperature: [0, 2], topP: [0.01, 1], topK: [0, 1000], maxTokens: [1, 1000000] };
  const choices = { language: ["system", "en", "ja"], theme: ["system", "light", "dark"] };

  let current = { ...defaults };
  let sessionKey = "";
  const listeners = new Set();

  function checked(name, value) {
    if (name === "maxTokens" && (value === null || value === "")) return null;
    if (name in ranges) {
      const figure = Number(value);
      const [low, high] = ranges[name];
      if (value === "" || value === null || !Number.isFinite(figure)) return defaults[name];
      const held = Math.min(high, Math.max(low, figure));
      return name === "topK" || name === "maxTokens" ? Math.round(held) : held;
    }
    if (name in choices) return choices[name].includes(value) ? value : defaults[name];
    return typeof value === typeof defaults[name] ? value : defaults[name];
  }

  function load() {
    let stored = {};
    try {
      stored = JSON.parse(localStorage.getItem("iberis.settings")) || {};
      sessionKey = sessionStorage.getItem("iberis.key") || "";
    } catch {
      // No storage: the defaults, for as long as the page is open.
    }
    for (const name of Object.keys(defaults)) {
      current[name] = Object.hasOwn(stored, name) ? checked(name, stored[name]) : defaults[name];
    }
    apply();
  }

  function set(name, value) {
    current[name] = checked(name, value);
    keep(localStorage, "iberis.settings", JSON.stringify(current));
    apply();
    for (const listener of listeners) listener(name);
    return current[name];
  }

  function keep(storage, name, text) {
    try {
      if (text) storage.setItem(name, text);
      else storage.removeItem(name);
    } catch {
      // Full or forbidden: what is set holds while the page is open.
    }
  }

  function apply() {
    const root = document.documentElement;
    if (current.theme === "system") delete root.dataset.theme;
    else root.dataset.theme = current.theme;
    const language = current.language === "system" ? navigator.language : current.language;
    root.lang = /^ja\b/.test(language) ? "ja" : "en";
  }

  // The sampling fields of a request: top_k and the like are extras at top level.
  function sampling() {
    const fields = { temperature: current.temperature, top_p: current.topP, top_k: current.topK };
    return current.maxTokens === null ? fields : { ...fields, max_tokens: current.maxTokens };
  }

  iberis.settings = {
    defaults,
    load,
    set,
    sampling,
    get: (name) => current[name],
    key: () => sessionKey,
    setKey(text) {
      sessionKey = text.trim();
      keep(sessionStorage, "iberis.key", sessionKey);
    },
    onChange: (listener) => listeners.add(listener),
  };
}
