"use strict";
// Is the server there, and with which model. One question when the page opens; more only while the answer is not "ok" and the
// page is seen.
{
  const SOONEST = 1000; // ms
  const LATEST = 10000;

  class ServerWatch {
    // changed() is called when status, reason, model or needsKey are other than before.
    constructor(changed) {
      Object.assign(this, { changed, status: "unknown", reason: "", model: null, needsKey: false, wait: SOONEST });
      document.addEventListener("visibilitychange", () => this.wake());
      addEventListener("online", () => this.wake());
    }

    get ready() {
      return this.status === "ok" && this.model !== null;
    }

    wake() {
      if (!document.hidden && this.status !== "ok") this.check();
    }

    // -> whether it is ready
    check() {
      this.checking ??= this.look().finally(() => {
        this.checking = null;
      });
      return this.checking;
    }

    // As check, but never with what a question that is under way was asked with, such as another key.
    async checkAnew() {
      await this.checking;
      return this.check();
    }

    async look() {
      clearTimeout(this.timer);
      const before = this.status;
      const { status, reason } = await iberis.api.health();
      Object.assign(this, { status, reason });
      if (status === "ok") await this.takeModel(before);
      if (this.status === "ok") this.wait = SOONEST;
      else this.later();
      this.changed(before);
      return this.ready;
    }

    async takeModel(before) {
      // A server that was away may have come back with another model.
      if (this.model && before === "ok" && !this.needsKey) return;
      try {
        this.model = await iberis.api.model();
        this.needsKey = false;
      } catch (error) {
        this.model = null;
        this.needsKey = error.kind === "errorKey";
        if (!this.needsKey) this.status = error.kind === "errorLoading" ? "loading" : "gone";
      }
    }

    later() {
      if (document.hidden) return;
      this.timer = setTimeout(() => this.check(), this.wait);
      if (this.status !== "loading") this.wait = Math.min(LATEST, 2 * this.wait);
    }

    // An answer has failed in a way that tells of the server.
    failed(kind) {
      if (kind === "errorKey") {
        this.needsKey = true;
        this.changed(this.status);
      }
      if (kind === "errorNetwork" || kind === "errorLoading" || kind === "errorCut") this.check();
    }
  }

  iberis.ServerWatch = ServerWatch;
}
