"use strict";
// The messages of the path that is shown. Only what has changed is drawn: a new path keeps the views that it shares with the
// old one, and a message far from the window is its bare text until it comes near.
{
  const NEAR = 120; // pixels from the end that count as the end

  class ThreadView {
    constructor(scroller, list, page, onStuck) {
      Object.assign(this, { scroller, list, page, onStuck });
      this.views = new Map();
      this.waiting = new Set();
      this.rest = 0;
      this.stuck = true;
      this.lastTop = 0;
      this.near = new IntersectionObserver((entries) => this.enrich(entries), { root: scroller, rootMargin: "1000px 0px" });
      scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
      new ResizeObserver(() => this.stuck && this.toEnd()).observe(list);
      new ResizeObserver(() => this.stuck && this.toEnd()).observe(scroller);
    }

    enrich(entries) {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        this.near.unobserve(entry.target);
        this.views.get(entry.target.dataset.id)?.enrich();
      }
    }

    // The path of another conversation, or another path of this one.
    show(path) {
      const wanted = new Set(path.map((message) => message.id));
      for (const [id, view] of this.views) {
        if (wanted.has(id)) continue;
        this.near.unobserve(view.root);
        view.root.remove();
        this.views.delete(id);
      }
      let before = null;
      for (const message of path) {
        let view = this.views.get(message.id);
        if (!view || view.message !== message) {
          view?.root.remove();
          view = new iberis.MessageView(message, this.page);
          this.views.set(message.id, view);
          this.near.observe(view.root);
        } else view.describe();
        const place = before ? before.nextSibling : this.list.firstChild;
        if (place !== view.root) this.list.insertBefore(view.root, place);
        before = view.root;
      }
      // The newest are wanted at once: no flash of bare text.
      for (const message of path.slice(-4)) this.views.get(message.id).enrich();
    }

    clear() {
      this.show([]);
      this.stuck = true;
    }

    // The text of a message has grown: drawn with the next frame, or later if drawing it takes long.
    grown(message) {
      this.waiting.add(message.id);
      if (this.timer) return;
      this.timer = setTimeout(() => requestAnimationFrame(() => this.paint()), this.rest);
    }

    paint() {
      const start = performance.now();
      this.timer = null;
      for (const id of this.waiting) this.views.get(id)?.paint();
      this.waiting.clear();
      this.rest = Math.min(500, 3 * (performance.now() - start));
    }

    // A message has begun, ended, or got a sibling.
    changed(message) {
      const view = this.views.get(message.id);
      if (!view?.rich) return;
      view.paint(!this.page.running(message));
      view.describe();
    }

    scrolled() {
      const { scrollTop, scrollHeight, clientHeight } = this.scroller;
      const left = scrollHeight - clientHeight - scrollTop;
      if (left < NEAR) this.stuck = true;
      else if (scrollTop < this.lastTop - 1) this.stuck = false; // Upward is the user; growth never is.
      this.lastTop = scrollTop;
      this.onStuck(this.stuck || left < NEAR);
    }

    toEnd() {
      this.stuck = true;
      this.scroller.scrollTop = this.scroller.scrollHeight;
      this.onStuck(true);
    }
  }

  iberis.ThreadView = ThreadView;
}
