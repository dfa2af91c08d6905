"use strict";
// Server-sent events out of bytes that arrive in any pieces: in the middle of a character, of a line end, of a name.
{
  class EventParser {
    constructor() {
      this.decoder = new TextDecoder("utf-8");
      this.line = "";
      this.data = [];
      this.afterReturn = false;
    }

    // The data of every event that these bytes (a Uint8Array) complete.
    feed(bytes) {
      return this.read(this.decoder.decode(bytes, { stream: true }));
    }

    // What the last bytes left: a server may close without the empty line that ends an event.
    end() {
      return [...this.read(this.decoder.decode()), ...this.read("\n\n")];
    }

    read(text) {
      const events = [];
      let start = 0;
      for (let i = 0; i < text.length; i++) {
        const unit = text[i];
        if (unit !== "\n" && unit !== "\r") {
          this.afterReturn = false;
          continue;
        }
        // "\r\n" is one line end, also where "\r" ended the piece before.
        if (unit === "\n" && this.afterReturn) {
          this.afterReturn = false;
          start = i + 1;
          continue;
        }
        this.afterReturn = unit === "\r";
        this.takeLine(this.line + text.slice(start, i), events);
        this.line = "";
        start = i + 1;
      }
      this.line += text.slice(start);
      return events;
    }

    takeLine(line, events) {
      if (line === "") {
        if (this.data.length) events.push(this.data.join("\n"));
        this.data = [];
        return;
      }
      const colon = line.indexOf(":");
      const name = colon < 0 ? line : line.slice(0, colon);
      if (name !== "data") return; // A comment, or a field that these streams don't use.
      const value = colon < 0 ? "" : line.slice(colon + 1);
      this.data.push(value.startsWith(" ") ? value.slice(1) : value);
    }
  }

  iberis.EventParser = EventParser;
}
