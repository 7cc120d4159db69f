"use strict";
// A session whose log-probabilities come from the server that sent the page.

const ROWS_AT_ONCE = 64;

class ServedSession extends Session {
  constructor(run) {
    super(run);
    this.turn = 0;
    this.loading = Promise.resolve();
  }

  // The model itself, for the view of its inside; it is fetched once, when that view is first opened.
  local() {
    this.fetched = this.fetched || this.fetchModel().catch((error) => { this.fetched = null; throw error; });
    return this.fetched;
  }

  async fetchModel() {
    const answer = await fetch(`page/model/${encodeURIComponent(this.run.label)}`), content = await answer.json();
    if (!answer.ok) throw new Error(content.error.message);
    const model = modelOf(content.model, await unpacked(content.weights), []);
    return new Session({...this.run, model});
  }

  // Fetches what `read` needs for a text; false if a later text has taken over.
  prepare(ids) {
    const turn = ++this.turn;
    this.loading = this.loading.catch(() => {}).then(() => this.load(ids, turn));
    return this.loading;
  }

  async load(ids, turn) {
    this.keep(ids);
    const tokens = [this.tokenizer.eos, ...ids];
    while (this.all.length < tokens.length) {
      if (turn !== this.turn) return false;
      const begin = this.all.length, part = tokens.slice(0, begin + ROWS_AT_ONCE);
      const answer = await fetch("page/distributions", {
        method: "POST", headers: {"content-type": "application/json"},
        body: JSON.stringify({model: this.run.label, tokens: part, begin}),
      });
      if (!answer.ok) throw new Error((await answer.json()).error.message);
      const content = await answer.arrayBuffer(), size = this.tokenizer.tokens.length;
      for (let row = 0; row < part.length - begin; row++) this.all.push({logs: new Float32Array(content, 4 * size * row, size)});
      this.known = part.slice(1);
    }
    return turn === this.turn;
  }
}
