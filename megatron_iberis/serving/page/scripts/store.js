"use strict";
// Conversations in IndexedDB: a record for each conversation and one for each message, so that an answer being written costs
// one small write however long its conversation is. Without IndexedDB (a private window, say) they live while the page does.
{
  function promised(request) {
    return new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }

  function finished(transaction) {
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
  }

  class Database {
    static async open() {
      const request = indexedDB.open("iberis", 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore("conversations", { keyPath: "id" });
        request.result.createObjectStore("messages", { keyPath: "id" }).createIndex("conversation", "conversation");
      };
      const store = new Database();
      store.database = await promised(request);
      store.database.onversionchange = () => store.database.close();
      return store;
    }

    write(change) {
      const transaction = this.database.transaction(["conversations", "messages"], "readwrite");
      change(transaction.objectStore("conversations"), transaction.objectStore("messages"));
      // At once: a page that is closed or loaded anew takes what is not yet being committed with it.
      transaction.commit();
      return finished(transaction);
    }

    conversations() {
      return promised(this.database.transaction("conversations").objectStore("conversations").getAll());
    }

    conversation(id) {
      return promised(this.database.transaction("conversations").objectStore("conversations").get(id));
    }

    messages(conversation) {
      return promised(this.database.transaction("messages").objectStore("messages").index("conversation").getAll(conversation));
    }

    put(conversation, messages = []) {
      return this.write((conversations, all) => {
        if (conversation) conversations.put(conversation);
        for (const message of messages) all.put(message);
      });
    }

    async remove(id) {
      const ids = (await this.messages(id)).map((message) => message.id);
      return this.write((conversations, all) => {
        conversations.delete(id);
        for (const message of ids) all.delete(message);
      });
    }

    clear() {
      return this.write((conversations, all) => {
        conversations.clear();
        all.clear();
      });
    }
  }

  class Memory {
    kept = new Map();
    texts = new Map();

    async conversations() {
      return [...this.kept.values()];
    }

    async conversation(id) {
      return this.kept.get(id);
    }

    async messages(conversation) {
      return [...this.texts.values()].filter((message) => message.conversation === conversation);
    }

    async put(conversation, messages = []) {
      if (conversation) this.kept.set(conversation.id, conversation);
      for (const message of messages) this.texts.set(message.id, message);
    }

    async remove(id) {
      this.kept.delete(id);
      for (const message of await this.messages(id)) this.texts.delete(message.id);
    }

    async clear() {
      this.kept.clear();
      this.texts.clear();
    }
  }

  // Tells other tabs of this page which conversation changed (null: any).
  const channel = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("iberis");
  let inner = new Memory();

  async function changing(id, change) {
    await change;
    channel?.postMessage(id);
  }

  iberis.store = {
    // -> whether anything outlives the page
    async open() {
      try {
        inner = await Database.open();
        return true;
      } catch {
        return false;
      }
    },
    async list() {
      return (await inner.conversations()).sort((a, b) => b.updated - a.updated);
    },
    conversation: (id) => inner.conversation(id),
    messages: (id) => inner.messages(id),
    // A message alone is a piece of an answer: other tabs hear of it when it ends.
    put: (conversation, messages) => (conversation ? changing(conversation.id, inner.put(conversation, messages)) : inner.put(null, messages)),
    remove: (id) => changing(id, inner.remove(id)),
    clear: () => changing(null, inner.clear()),
    onOtherTab: (listener) => channel?.addEventListener("message", (event) => listener(event.data)),
  };
}
