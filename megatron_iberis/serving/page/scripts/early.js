"use strict";
// Before the first paint: the theme and the language that were chosen, or else the system's.
const iberis = {};
{
  let chosen = {};
  try {
    chosen = JSON.parse(localStorage.getItem("iberis.settings")) || {};
  } catch {
    // Without storage, or with something else in it, the system's.
  }
  if (chosen.theme === "light" || chosen.theme === "dark") document.documentElement.dataset.theme = chosen.theme;
  const language = chosen.language === "en" || chosen.language === "ja" ? chosen.language : navigator.language;
  document.documentElement.lang = /^ja\b/.test(language) ? "ja" : "en";
}
