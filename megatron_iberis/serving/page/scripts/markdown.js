"use strict";
// Markdown -> elements. The sanitiser comes last, after every step that makes HTML, and what it lets through is a short list:
// nothing in it loads, runs, or draws over the page. Without it there is no HTML at all.
{
  const { element, iconButton, copyFrom } = iberis.elements;

  const TAGS = "p br hr h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong del a table thead tbody tr th td span".split(" ");
  const ATTRIBUTES = ["href", "class", "start", "align"];
  const CLASS = /^(language-[\w+#.-]{1,40}|hljs-[\w-]{1,40}( [\w-]{1,40}_)*)$/;
  const LONGEST_TO_COLOUR = 20000;

  const purify = typeof DOMPurify === "undefined" || !DOMPurify?.isSupported ? null : DOMPurify;
  const parser = typeof marked === "undefined" || !purify ? null : new marked.Marked({ gfm: true, breaks: true });

  function escaped(text) {
    return text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
  }

  // HTML that a model writes is shown as what it is: text. A picture becomes a link to it, which loads nothing.
  parser?.use({
    renderer: {
      html: ({ text }) => escaped(text),
      checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
      image({ href, text }) {
        return `<a href="${escaped(href)}">${escaped(text || href)}</a>`;
      },
    },
  });

  purify?.addHook("uponSanitizeAttribute", (node, data) => {
    if (data.attrName === "class" && !CLASS.test(data.attrValue)) data.keepAttr = false;
    if (data.attrName === "align" && !/^(left|center|right)$/.test(data.attrValue)) data.keepAttr = false;
  });
  purify?.addHook("afterSanitizeAttributes", (node) => {
    if (node.nodeName !== "A") return;
    if (!node.hasAttribute("href")) return;
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
    node.setAttribute("title", node.getAttribute("href"));
  });

  // A string of HTML -> a fragment of what is allowed in it.
  function sanitised(html) {
    return purify.sanitize(html, {
      ALLOWED_TAGS: TAGS,
      ALLOWED_ATTR: ATTRIBUTES,
      ALLOW_DATA_ATTR: false,
      ALLOW_ARIA_ATTR: false,
      ADD_URI_SAFE_ATTR: ["align", "start"], // the pattern below is asked of every other attribute
      ALLOWED_URI_REGEXP: /^https?:\/\//i,
      RETURN_DOM_FRAGMENT: true,
    });
  }

  function coloured(code) {
    const language = /language-(\S+)/.exec(code.className)?.[1];
    if (!language || typeof hljs === "undefined" || !hljs.getLanguage(language) || code.textContent.length > LONGEST_TO_COLOUR) return;
    code.replaceChildren(sanitised(hljs.highlight(code.textContent, { language, ignoreIllegals: true }).value));
  }

  // Code gets a line with its language and a button; a wide table scrolls by itself.
  function dressed(fragment) {
    for (const code of fragment.querySelectorAll("pre > code")) {
      coloured(code);
      const name = /language-(\S+)/.exec(code.className)?.[1] ?? "";
      const label = iberis.texts.say("copyCode");
      const button = iconButton("copy", label, () => copyFrom(button, code.textContent));
      const frame = element("div", { class: "code" }, element("div", { class: "code-head" }, element("span", {}, name), button));
      code.parentElement.replaceWith(frame);
      frame.append(element("pre", { tabindex: "0" }, code));
    }
    for (const table of fragment.querySelectorAll("table")) {
      const frame = element("div", { class: "table", tabindex: "0" });
      table.replaceWith(frame);
      frame.append(table);
    }
    return fragment;
  }

  function plain(text) {
    return element("p", { class: "plain" }, text);
  }

  // Holds the elements of one text and replaces only the blocks that have changed: the last one or two while an answer is
  // written. What stands above stays as it is, and so does what is selected in it.
  class Markdown {
    constructor(root) {
      this.root = root;
      this.sources = [];
    }

    show(text) {
      if (!parser) {
        this.root.replaceChildren(plain(text));
        return;
      }
      let blocks;
      try {
        blocks = parser.lexer(text).filter((block) => block.type !== "space" && block.type !== "def");
      } catch {
        this.sources = [];
        this.root.replaceChildren(plain(text));
        return;
      }
      let same = 0;
      while (same < blocks.length && this.sources[same] === blocks[same].raw) same++;
      while (this.root.children.length > same) this.root.lastElementChild.remove();
      for (const block of blocks.slice(same)) this.root.append(this.made(block));
      this.sources = blocks.map((block) => block.raw);
    }

    made(block) {
      const frame = element("div", { class: "block" });
      try {
        frame.append(dressed(sanitised(parser.parser([block]))));
      } catch {
        frame.append(plain(block.raw));
      }
      return frame;
    }

    // After the end: a link's address may have been written below the link.
    finish(text) {
      if (/^ {0,3}\[[^\]]+\]:/m.test(text)) {
        this.sources = [];
        this.root.replaceChildren();
      }
      this.show(text);
    }
  }

  iberis.markdown = { Markdown, sanitised: purify && sanitised, rich: Boolean(parser) };
}
