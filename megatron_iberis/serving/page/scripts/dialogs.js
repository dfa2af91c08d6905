"use strict";
// The settings, and the question before something is lost. Both are <dialog>s: the browser keeps the focus inside them.
{
  const { settings } = iberis;
  const { say } = iberis.texts;
  const at = (id) => document.getElementById(id);

  // -> whether the answer was yes
  function ask(title, more, yes) {
    const dialog = at("ask");
    at("ask-title").textContent = title;
    at("ask-more").textContent = more;
    at("ask-yes").textContent = yes;
    return new Promise((resolve) => {
      const answer = (value) => () => {
        dialog.onclose = null;
        dialog.close();
        resolve(value);
      };
      at("ask-yes").onclick = answer(true);
      at("ask-no").onclick = answer(false);
      dialog.onclose = answer(false);
      dialog.showModal();
      at("ask-no").focus();
    });
  }

  function fillSettings() {
    for (const field of document.querySelectorAll("[data-setting]")) field.value = settings.get(field.dataset.setting) ?? "";
    at("key").value = settings.key();
  }

  function openSettings(focus = null) {
    fillSettings();
    at("data-result").textContent = "";
    at("settings").showModal();
    if (focus) at(focus).focus();
  }

  // actions: keyChanged(), exportAll(), importText(text) and removeAll(), which come back with what to say, or ""
  function wire(actions) {
    const dialog = at("settings");
    at("settings-open").onclick = () => openSettings();
    at("settings-close").onclick = () => dialog.close();
    for (const each of [dialog, at("ask")]) {
      each.addEventListener("click", (event) => event.target === each && outside(each, event) && each.close());
    }
    for (const field of document.querySelectorAll("[data-setting]")) {
      field.addEventListener("change", () => {
        field.value = settings.set(field.dataset.setting, field.value) ?? "";
      });
    }
    at("defaults").onclick = () => {
      for (const name of ["temperature", "topP", "topK", "maxTokens", "system"]) settings.set(name, settings.defaults[name]);
      fillSettings();
    };
    at("key").addEventListener("change", () => {
      settings.setKey(at("key").value);
      actions.keyChanged();
    });
    const told = async (action) => {
      at("data-result").textContent = await action;
    };
    at("export").onclick = () => told(actions.exportAll());
    at("clear").onclick = () => told(actions.removeAll());
    at("import").onclick = () => at("import-file").click();
    at("import-file").onchange = () => {
      const [file] = at("import-file").files;
      if (file) told(file.size > 200e6 ? say("importFailed", { reason: say("importLarge") }) : file.text().then(actions.importText));
      at("import-file").value = "";
    };
  }

  // A click on the shade beside a dialog has the dialog as its target as well.
  function outside(dialog, { clientX, clientY }) {
    const box = dialog.getBoundingClientRect();
    return clientX < box.left || clientX > box.right || clientY < box.top || clientY > box.bottom;
  }

  iberis.dialogs = { ask, openSettings, wire };
}
