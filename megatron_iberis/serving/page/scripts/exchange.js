"use strict";
// Conversations as a file, and back. A file is as little trusted as a model: every field is looked at, and nothing else of it
// is taken over.
{
  const FORMAT = "iberis-conversations";
  const ROLES = ["user", "assistant"];
  const FINISHES = ["stop", "length", "stopped", "error", null];
  const { newId } = iberis.tree;

  class ImportError extends Error {}

  function exported(conversations) {
    return {
      format: FORMAT,
      version: 1,
      conversations: conversations.map(({ conversation, messages }) => ({
        ...conversation,
        chosen: [...conversation.chosen],
        messages: [...messages].sort((a, b) => a.created - b.created).map(({ conversation: _, ...message }) => message),
      })),
    };
  }

  const text = (value) => (typeof value === "string" ? value : "");
  const time = (value) => (Number.isFinite(value) && value > 0 && value < 8.64e15 ? value : 1);
  const figure = (value) => (Number.isFinite(value) && value >= 0 ? value : 0);

  function usage(value) {
    if (typeof value !== "object" || value === null) return undefined;
    const [prompt, completion, cached, total] = [value.prompt, value.completion, value.cached, value.total].map(figure);
    return { prompt, completion, cached, total, estimated: value.estimated === true };
  }

  // Messages in an order in which a parent comes before its children; those whose parent is missing, or that go in a
  // circle, are left out.
  function messagesOf(list, conversation, ids) {
    const waiting = new Map();
    for (const item of list) {
      if (typeof item !== "object" || item === null || !ROLES.includes(item.role) || typeof item.text !== "string") continue;
      if (typeof item.id !== "string" || ids.has(item.id)) continue;
      ids.set(item.id, newId());
      const parent = typeof item.parent === "string" ? item.parent : null;
      if (!waiting.has(parent)) waiting.set(parent, []);
      waiting.get(parent).push(item);
    }
    const messages = [];
    const reached = [null];
    while (reached.length) {
      const parent = reached.shift();
      for (const item of waiting.get(parent) ?? []) {
        reached.push(item.id);
        messages.push({
          id: ids.get(item.id),
          conversation,
          parent: parent === null ? null : ids.get(parent),
          role: item.role,
          text: item.text,
          created: time(item.created),
          finish: FINISHES.includes(item.finish) ? item.finish : "stop",
          model: text(item.model),
          usage: usage(item.usage),
          seconds: figure(item.seconds),
          first: figure(item.first),
        });
      }
    }
    return messages;
  }

  function conversationOf(item, known) {
    if (typeof item !== "object" || item === null || !Array.isArray(item.messages)) throw new ImportError("importNoForm");
    const origin = (text(item.origin) || text(item.id) || newId()).slice(0, 100);
    const updated = time(item.updated);
    if (known.get(origin) >= updated) return null;
    // An id of its own: a file must not be able to name, and so replace, what is here. By `origin` and the time of the last
    // change it is known whether that was taken already.
    const id = newId();
    const ids = new Map();
    const messages = messagesOf(item.messages, id, ids);
    const pairs = Array.isArray(item.chosen) ? item.chosen.filter((pair) => Array.isArray(pair)) : [];
    const chosen = new Map(
      pairs.map(([parent, child]) => [parent === "" ? "" : ids.get(parent), ids.get(child)]).filter(([a, b]) => a !== undefined && b),
    );
    const title = text(item.title).slice(0, 200);
    return { conversation: { id, origin, title, created: time(item.created), updated, chosen }, messages };
  }

  // A file's text -> [{conversation, messages}], and how many of it are here already. Throws ImportError with a text's key.
  function imported(json, here) {
    let file;
    try {
      file = JSON.parse(json);
    } catch {
      throw new ImportError("importNoJson");
    }
    if (file?.format !== FORMAT || !Array.isArray(file.conversations)) throw new ImportError("importNoForm");
    const known = new Map();
    for (const { id, origin, updated } of here) {
      for (const name of [id, origin]) known.set(name, Math.max(updated, known.get(name) ?? 0));
    }
    const taken = [];
    for (const item of file.conversations) {
      const read = conversationOf(item, known);
      if (read) {
        known.set(read.conversation.origin, read.conversation.updated);
        taken.push(read);
      }
    }
    return { taken, known: file.conversations.length - taken.length };
  }

  iberis.exchange = { exported, imported, ImportError };
}
