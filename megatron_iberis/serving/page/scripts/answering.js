"use strict";
// Answers that are being written: several at once, each in its conversation, also while another one is shown.
{
  const SAVE_EVERY = 250; // ms: what a closed page may lose
  const LEAVING = 300; // ms that a page which is being left lives on
  const { api } = iberis;

  // Two turns of one role in a row (after an answer that failed) become one: models have learned to alternate.
  function turns(path) {
    const messages = [];
    for (const { role, text } of path) {
      if (text === "") continue;
      if (messages.at(-1)?.role === role) messages.at(-1).content += `\n\n${text}`;
      else messages.push({ role, content: text });
    }
    return messages;
  }

  function request(tree, message, model) {
    const path = tree.pathTo(message);
    const common = { model: model.id, stream: true, stream_options: { include_usage: true }, ...iberis.settings.sampling() };
    if (model.base) return ["v1/completions", { ...common, prompt: path.map(({ text }) => text).join("") }];
    const system = iberis.settings.get("system").trim();
    const messages = [...(system ? [{ role: "system", content: system }] : []), ...turns(path)];
    return ["v1/chat/completions", { ...common, messages }];
  }

  class Answers {
    // events: grown(message), changed(message), ended(tree, message, error), saveFailed(error)
    constructor(events) {
      this.events = events;
      this.running = new Map(); // message's id -> {controller, tree, message}
    }

    isRunning(message) {
      return this.running.has(message.id);
    }

    inConversation(id) {
      return [...this.running.values()].find(({ tree }) => tree.conversation.id === id);
    }

    stop(id) {
      this.inConversation(id)?.controller.abort();
    }

    // Writes on at `message`, which is an empty one or a part of an answer, until it ends in one way or another.
    async run(tree, message, model) {
      const [path, body] = request(tree, message, model);
      const controller = new AbortController();
      const clock = { sent: performance.now(), first: 0, last: 0, pieces: 0, saved: 0 };
      const earlier = { completion: message.usage?.completion ?? 0, seconds: message.seconds ?? 0 };
      Object.assign(message, { finish: null, error: undefined, model: model.id });
      this.running.set(message.id, { controller, tree, message });
      const saving = setInterval(() => clock.pieces > clock.saved && this.savePart(message, clock), SAVE_EVERY);
      this.events.changed(message);
      let usage = null;
      let failure = null;
      try {
        for await (const piece of api.stream(path, body, controller.signal)) {
          if (piece.text) this.take(message, piece.text, clock);
          if (piece.finish) message.finish = piece.finish === "length" ? "length" : "stop";
          if (piece.usage) usage = piece.usage;
        }
      } catch (error) {
        failure = error;
        // A page that is being left sees its connections cut, too: where it is, this is not reached any more.
        if (!controller.signal.aborted) await new Promise((resolve) => setTimeout(resolve, LEAVING));
        if (controller.signal.aborted) message.finish = "stopped";
        else Object.assign(message, { finish: "error", error: { kind: error.kind ?? "errorForm", detail: error.detail ?? String(error.message) } });
      }
      clearInterval(saving);
      measure(message, usage, clock, earlier);
      this.running.delete(message.id);
      tree.conversation.updated = Date.now();
      await this.save(tree.conversation, message);
      this.events.ended(tree, message, controller.signal.aborted ? null : failure);
    }

    take(message, text, clock) {
      clock.last = performance.now();
      clock.first ||= clock.last;
      clock.pieces++;
      message.text += text;
      if (clock.pieces === 1) this.events.changed(message);
      else this.events.grown(message, (clock.pieces - 1) / ((clock.last - clock.first) / 1000));
    }

    savePart(message, clock) {
      clock.saved = clock.pieces;
      this.save(null, message);
    }

    async save(conversation, message) {
      try {
        await iberis.store.put(conversation, [message]);
      } catch (error) {
        this.events.saveFailed(error);
      }
    }
  }

  // A stopped stream brings no usage: then one piece counts as one token.
  function measure(message, usage, clock, earlier) {
    if (!clock.pieces) return;
    const now = usage?.completion_tokens ?? clock.pieces;
    const spread = (clock.last - clock.first) / 1000;
    message.first = (clock.first - clock.sent) / 1000;
    message.seconds = earlier.seconds + (now > 1 ? (spread * now) / (now - 1) : spread);
    message.usage = {
      prompt: usage?.prompt_tokens ?? 0,
      completion: earlier.completion + now,
      cached: usage?.prompt_tokens_details?.cached_tokens ?? 0,
      total: usage ? (usage.total_tokens ?? usage.prompt_tokens + now) : 0,
      estimated: !usage,
    };
  }

  iberis.Answers = Answers;
}
