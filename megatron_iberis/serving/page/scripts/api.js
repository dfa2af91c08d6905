"use strict";
// The server: is it there, which model has it, and answers as they come. Addresses are beside the page's own, so that a
// proxy may put it below a path.
{
  // `kind` is the text that says it (texts.js); `detail` what the server said.
  class ApiError extends Error {
    constructor(kind, detail = "", status = 0) {
      super(detail || kind);
      this.kind = kind;
      this.detail = detail;
      this.status = status;
    }
  }

  function address(path) {
    return new URL(path, document.baseURI).href;
  }

  async function ask(path, options = {}) {
    const key = iberis.settings.key();
    const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    try {
      return await fetch(address(path), { cache: "no-store", referrerPolicy: "no-referrer", ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("errorNetwork");
    }
  }

  async function refusal(response) {
    let detail = "";
    try {
      detail = String((await response.json()).error.message);
    } catch {
      // A proxy's page, say: the status has to do.
    }
    const kinds = { 401: "errorKey", 403: "errorServer", 429: "errorBusy", 502: "errorNetwork", 503: "errorLoading", 504: "errorNetwork" };
    return new ApiError(kinds[response.status] || "errorServer", detail || `HTTP ${response.status}`, response.status);
  }

  // -> {status: "ok" | "loading" | "failed" | "gone", reason}. Never throws.
  async function health() {
    try {
      const response = await ask("health", { signal: AbortSignal.timeout(10000) });
      const body = await response.json();
      const reason = String(body.reason ?? body.error?.message ?? "");
      if (["ok", "loading", "failed"].includes(body.status)) return { status: body.status, reason };
      return { status: response.ok ? "ok" : "gone", reason: "" };
    } catch {
      return { status: "gone", reason: "" };
    }
  }

  // -> {id, contextLength or null, base}
  async function model() {
    const response = await ask("v1/models");
    if (!response.ok) throw await refusal(response);
    const first = await response.json().then((body) => body.data[0], () => undefined);
    if (typeof first?.id !== "string") throw new ApiError("errorForm");
    const length = Number(first.context_length ?? first.max_model_len);
    return { id: first.id, contextLength: length > 0 ? length : null, base: first.stage === "base" || first.chat === false };
  }

  function choiceText(choice) {
    return choice.delta ? (choice.delta.content ?? "") : (choice.text ?? "");
  }

  // Yields {text}, {finish}, {usage} as the server sends them; throws ApiError, also where the stream ends before its end.
  async function* stream(path, body, signal) {
    const response = await ask(path, { method: "POST", body: JSON.stringify(body), signal });
    if (!response.ok) throw await refusal(response);
    if (!response.body) throw new ApiError("errorForm");
    let ended = false;
    for await (const event of events(response.body, signal)) {
      if (event === "[DONE]") return;
      let piece;
      try {
        piece = JSON.parse(event);
      } catch {
        throw new ApiError("errorForm");
      }
      if (piece?.error) throw new ApiError("errorServer", String(piece.error.message ?? piece.error));
      for (const choice of piece?.choices ?? []) {
        const text = choiceText(choice);
        if (text) yield { text };
        if (choice.finish_reason) {
          ended = true;
          yield { finish: choice.finish_reason };
        }
      }
      if (piece?.usage) yield { usage: piece.usage };
    }
    if (!ended) throw new ApiError("errorCut");
  }

  async function* events(body, signal) {
    const reader = body.getReader();
    const parser = new iberis.EventParser();
    try {
      for (;;) {
        let part;
        try {
          part = await reader.read();
        } catch (error) {
          if (signal?.aborted) throw error;
          throw new ApiError("errorCut");
        }
        yield* part.done ? parser.end() : parser.feed(part.value);
        if (part.done) return;
      }
    } finally {
      // Also where the reader of these events leaves early: the server then frees its slot.
      reader.cancel().catch(() => {});
    }
  }

  iberis.api = { ApiError, health, model, stream };
}
