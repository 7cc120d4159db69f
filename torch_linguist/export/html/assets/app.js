"use strict";
// The page: typing, generating, looking inside, comparing. All text is set as text, never as markup.

const SHOWN = 12;

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "class") element.className = value; else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const byId = (id) => document.getElementById(id);
const percent = (share) => (share >= 0.0995 ? `${Math.round(100 * share)}%` : `${(100 * share).toPrecision(2)}%`);
const visible = (text) => text.replace(/\n/g, "⏎").replace(/^ | $/g, "␣") || "∅";

class Page {
  constructor(runs) {
    this.runs = runs;
    this.sessions = runs.map((run) => (run.model ? new Session(run) : new ServedSession(run)));
    this.text = byId("text");
    this.random = randomOf(1);
    this.running = false;
    this.choices();
    this.tabs();
    this.text.addEventListener("input", () => this.typed());
    this.text.addEventListener("keydown", (event) => this.key(event));
    byId("inside-unit").addEventListener("change", () => this.typed());
    byId("generate").addEventListener("click", () => this.generate(Number(byId("length").value)));
    byId("one-word").addEventListener("click", () => this.generate(1));
    this.typed();
  }

  get session() { return this.sessions[Number(byId("run").value)]; }

  choices() {
    const select = byId("run");
    this.runs.forEach((run, index) => select.append(make("option", {value: index}, run.label)));
    select.addEventListener("change", () => {
      byId("inside-unit").replaceChildren();
      byId("inside-choice").hidden = true;
      this.typed();
    });
    byId("run-choice").hidden = this.runs.length < 2;
    byId("tab-compare").hidden = this.runs.length < 2;
  }

  tabs() {
    const tabs = [...document.querySelectorAll("[role=tab]")];
    const open = (tab) => {
      for (const other of tabs) {
        const chosen = other === tab;
        other.setAttribute("aria-selected", chosen);
        other.tabIndex = chosen ? 0 : -1;
        byId(other.getAttribute("aria-controls")).hidden = !chosen;
      }
      this.shown = tab.id;
      this.typed();
    };
    tabs.forEach((tab) => {
      tab.addEventListener("click", () => open(tab));
      tab.addEventListener("keydown", (event) => {
        const shown = tabs.filter((other) => !other.hidden), step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
        if (!step) return;
        const next = shown[(shown.indexOf(tab) + step + shown.length) % shown.length];
        next.focus();
        open(next);
      });
    });
    // A link may name a tab, as in #inside.
    this.shown = tabs[0].id;
    const named = tabs.find((tab) => !tab.hidden && `#${tab.getAttribute("aria-controls")}` === location.hash);
    if (named) open(named);
  }

  key(event) {
    if (event.key === "Tab" && !event.shiftKey && this.suggested && this.suggested.length) {
      event.preventDefault();
      this.take(this.suggested[0]);
    } else if (event.key === "Escape") {
      this.text.blur();
    }
  }

  typed() {
    this.settled = this.refresh();
    return this.settled;
  }

  async refresh() {
    const {session} = this, encoded = encodedBy(session, this.text.value);
    const shown = this.shown === "tab-compare" ? this.sessions : [session];
    try {
      const current = await Promise.all(shown.map((one) => one.prepare(encodedBy(one, this.text.value).map((piece) => piece.id))));
      if (!current.every(Boolean)) return;
      byId("failed").hidden = true;
      this.encoded = encoded;
      this.suggest();
      this.colored();
      if (this.shown === "tab-inside") await this.inside();
      if (this.shown === "tab-compare") this.compare();
    } catch (error) {
      byId("failed").textContent = session.model ? `The page failed: ${error.message}` : `The server does not answer: ${error.message}`;
      byId("failed").hidden = false;
    }
  }

  // The complete tokens, and the beginning of a word that is still being typed.
  split() {
    const tokenizer = this.session.tokenizer, text = tokenizer.normalized(this.text.value);
    const last = this.encoded[this.encoded.length - 1];
    const open = tokenizer.wordLevel && last && last.end === text.length && !/\s$/.test(text) && /[\p{L}\p{N}]$/u.test(text);
    return open ? {done: this.encoded.slice(0, -1), prefix: last.text} : {done: this.encoded, prefix: ""};
  }

  suggest() {
    const {tokenizer} = this.session, {done, prefix} = this.split();
    this.session.read(done.map((piece) => piece.id));
    const found = likeliest(this.session.last().logs, SHOWN, (id) => id !== tokenizer.unk && tokenizer.tokens[id].startsWith(prefix));
    this.suggested = found.map((one) => ({...one, prefix}));
    const list = byId("suggestions");
    list.replaceChildren(...this.suggested.map((one) => this.bar(one)));
    if (!found.length) list.append(make("p", {class: "quiet"}, "The vocabulary has no word that begins so."));
  }

  bar(one) {
    const name = visible(one.id === this.session.tokenizer.eos ? "\n" : this.session.tokenizer.surface(this.session.tokenizer.tokens[one.id]));
    const fill = make("span", {class: "fill"});
    fill.style.width = `${100 * one.share / (this.suggested[0].share || 1)}%`;
    const button = make("button", {class: "bar", type: "button", "aria-label": `${name}, ${percent(one.share)}`}, fill,
      make("span", {class: "name"}, name), make("span", {class: "share"}, percent(one.share)));
    button.addEventListener("click", () => this.take(one));
    return button;
  }

  take(one) {
    const text = this.text.value, {tokenizer} = this.session;
    if (one.prefix) this.text.value = text.slice(0, text.length - one.prefix.length) + tokenizer.tokens[one.id];
    else this.text.value = text + tokenizer.appended(one.id, text);
    this.text.focus();
    this.typed();
  }

  colored() {
    const ids = this.encoded.map((piece) => piece.id), bits = this.session.surprisals(ids);
    byId("colored").replaceChildren(...this.encoded.map((piece, n) => this.token(piece, bits[n], n)));
    const total = bits.reduce((a, b) => a + b, 0);
    byId("perplexity").textContent = ids.length
      ? `${ids.length} tokens, perplexity ${(2 ** (total / ids.length)).toPrecision(4)}, ${(total / ids.length).toFixed(2)} bits a token`
      : "Type something.";
  }

  token(piece, bits, n) {
    const span = make("button", {class: "token", type: "button", title: `${bits.toFixed(2)} bits, probability ${percent(2 ** -bits)}`}, visible(piece.text));
    span.style.setProperty("--heat", Math.min(1, bits / 14));
    span.addEventListener("click", () => this.alternatives(n, span));
    return span;
  }

  // What else was likely where a token stands.
  alternatives(n, span) {
    const {tokenizer} = this.session;
    const found = likeliest(this.session.steps[n].logs, 8, () => true);
    const words = found.map((one) => `${visible(one.id === tokenizer.eos ? "\n" : tokenizer.surface(tokenizer.tokens[one.id]))} ${percent(one.whole)}`);
    byId("alternatives").replaceChildren(make("strong", {}, `${span.textContent}: `), `expected here: ${words.join(", ")}`);
  }

  async generate(length) {
    if (this.running) { this.running = false; return; }
    this.running = true;
    byId("generate").textContent = "Stop";
    const seed = Number(byId("seed").value);
    if (this.seed !== seed || !this.text.value) { this.random = randomOf(seed); this.seed = seed; }
    const options = {
      temperature: Math.max(0, Number(byId("temperature").value)), topK: Number(byId("top-k").value), topP: Number(byId("top-p").value),
    };
    for (let n = 0; n < length && this.running; n++) {
      const {tokenizer} = this.session, ids = this.encoded.map((piece) => piece.id);
      if (!await this.session.prepare(ids)) break;
      this.session.read(ids);
      const id = drawn(this.session.last().logs, options, this.random, tokenizer.unk);
      this.text.value += tokenizer.appended(id, this.text.value);
      await this.typed();
      if (!byId("failed").hidden) break;
      await new Promise((resolve) => setTimeout(resolve));
    }
    this.running = false;
    byId("generate").textContent = "Generate";
  }

  async inside() {
    const area = byId("inside-area"), {encoded} = this, ids = encoded.map((piece) => piece.id);
    if (!ids.length) { area.replaceChildren(make("p", {class: "quiet"}, "Type something first.")); return; }
    const session = await this.session.local();
    if (encoded !== this.encoded) return;
    const steps = session.read(ids), names = encoded.map((piece) => visible(piece.text));
    area.replaceChildren(...insideViews(session.model, steps, names, byId("inside-unit").value));
  }

  compare() {
    const rows = this.sessions.map((session) => {
      const encoded = encodedBy(session, this.text.value);
      return {session, encoded, bits: session.surprisals(encoded.map((piece) => piece.id))};
    });
    byId("compare-area").replaceChildren(...rows.map((row, index) => {
      const total = row.bits.reduce((a, b) => a + b, 0), other = rows[1 - Math.min(index, 1)];
      const line = make("p", {class: "tokens"}, ...row.encoded.map((piece, n) => {
        const difference = row.bits[n] - bitsOver(other, piece.begin, piece.end);
        const span = make("span", {class: "token", title: `${row.bits[n].toFixed(2)} bits; ${difference >= 0 ? "+" : ""}${difference.toFixed(2)} against ${other.session.run.label}`}, visible(piece.text));
        span.style.setProperty(difference < 0 ? "--better" : "--worse", Math.min(1, Math.abs(difference) / 6));
        return span;
      }));
      return make("section", {}, make("h3", {}, row.session.run.label), line, make("p", {class: "quiet"}, `${total.toFixed(1)} bits in all; blue words are easier for it than for ${other.session.run.label}, orange ones harder`));
    }));
  }
}

const encodedBy = (session, text) => session.tokenizer.encode(session.tokenizer.normalized(text));

// The bits that a model needs for a stretch of characters; a token that reaches over an end counts by its share.
function bitsOver(row, begin, end) {
  return row.encoded.reduce((sum, piece, n) => {
    const overlap = Math.max(0, Math.min(end, piece.end) - Math.max(begin, piece.begin));
    return sum + row.bits[n] * overlap / Math.max(1, piece.end - piece.begin);
  }, 0);
}
