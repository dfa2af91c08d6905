"use strict";
// A conversation as a tree: every message knows the one before it, an answer given anew stands beside the first one. What
// is shown is one path through it.
//
//   conversation  {id, title, created, updated, chosen: Map parent or "" -> child}
//   message       {id, conversation, parent or null, role, text, created, finish, error, model, usage, seconds, first}
//
// `finish` is "stop", "length", "stopped" (by the user), "error", or null while it is written (or was, when the page closed).
{
  // crypto.randomUUID is missing on plain HTTP from another machine.
  function newId() {
    return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  function newConversation() {
    const now = Date.now();
    return { id: newId(), title: "", created: now, updated: now, chosen: new Map() };
  }

  function titleFrom(text) {
    const line = text.trim().split("\n", 1)[0];
    const signs = Array.from(line);
    return signs.length > 60 ? `${signs.slice(0, 59).join("")}…` : line;
  }

  class Tree {
    constructor(conversation, messages = []) {
      this.conversation = conversation;
      this.messages = new Map();
      this.below = new Map(); // parent's id or "" -> children, the oldest first
      for (const message of [...messages].sort((a, b) => a.created - b.created)) this.put(message);
    }

    put(message) {
      this.messages.set(message.id, message);
      const key = message.parent ?? "";
      if (!this.below.has(key)) this.below.set(key, []);
      this.below.get(key).push(message);
    }

    add(parent, role, text, more = {}) {
      const siblings = this.siblingsBelow(parent);
      // Times order messages, so two of one millisecond must differ.
      const before = Math.max(siblings.at(-1)?.created ?? 0, this.messages.get(parent)?.created ?? 0);
      const created = Math.max(Date.now(), before + 1);
      const message = { id: newId(), conversation: this.conversation.id, parent, role, text, created, finish: null, ...more };
      this.put(message);
      this.choose(message);
      this.conversation.updated = Date.now();
      return message;
    }

    siblingsBelow(parent) {
      return this.below.get(parent ?? "") ?? [];
    }

    siblings(message) {
      return this.siblingsBelow(message.parent);
    }

    // Only forks are written down: elsewhere there is nothing to choose.
    choose(message) {
      const key = message.parent ?? "";
      if (this.siblings(message).length > 1) this.conversation.chosen.set(key, message.id);
    }

    childOf(parent) {
      const children = this.siblingsBelow(parent);
      const chosen = this.conversation.chosen.get(parent ?? "");
      return children.find((child) => child.id === chosen) ?? children.at(-1);
    }

    // What is shown, from the first message on.
    path() {
      const path = [];
      for (let message = this.childOf(null); message; message = this.childOf(message.id)) path.push(message);
      return path;
    }

    // From the first message to this one.
    pathTo(message) {
      const path = [];
      for (let node = message; node; node = this.messages.get(node.parent)) path.unshift(node);
      return path;
    }
  }

  iberis.tree = { Tree, newId, newConversation, titleFrom };
}
