"use strict";
// The n-gram model as a trie: the n-grams of an order lie sorted by context, those of one context side by side.

class NGram {
  constructor(spec, tensors) {
    this.spec = spec;
    this.t = tensors;
    this.levels = [];
    for (let k = 2; k <= spec.order; k++) {
      const of = (name) => tensors[`order${k}.${name}`];
      this.levels.push({
        words: of("words").data, starts: of("starts").data, logs: of("log_prob"), backoffs: of("log_backoff"),
      });
    }
  }

  start() { return {history: []}; }

  // Where a word stands among the continuations of a context; -1 where it was never seen there.
  find(level, context, word) {
    let low = level.starts[context], high = level.starts[context + 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (level.words[middle] < word) low = middle + 1; else high = middle;
    }
    return low < level.starts[context + 1] && level.words[low] === word ? low : -1;
  }

  // Index of the k words that end the history among the n-grams of order k; -1 where they were never seen.
  contexts(history) {
    const found = [];
    for (let k = 1; k < this.spec.order; k++) {
      if (k > history.length) { found.push(-1); continue; }
      const words = history.slice(history.length - k);
      let index = words[0];
      for (let i = 1; i < k && index >= 0; i++) index = this.find(this.levels[i - 1], index, words[i]);
      found.push(index);
    }
    return found;
  }

  step(state, token) {
    const history = [...state.history, token].slice(1 - this.spec.order || -1);
    const used = this.spec.order > 1 ? this.contexts(history) : [];
    const logs = Float32Array.from(this.t.unigrams.data);
    const orders = new Uint8Array(logs.length).fill(1);
    for (let k = 0; k < used.length; k++) {
      const level = this.levels[k], context = used[k];
      if (context < 0) {
        // A context that was never seen costs nothing, but for stupid backoff.
        if (this.spec.unseen_backoff && history.length > k) for (let w = 0; w < logs.length; w++) logs[w] += this.spec.unseen_backoff;
        continue;
      }
      const backoff = this.quantity(level.backoffs, context, `order${k + 2}.backoff_book`);
      for (let w = 0; w < logs.length; w++) logs[w] += backoff;
      for (let i = level.starts[context]; i < level.starts[context + 1]; i++) {
        logs[level.words[i]] = this.quantity(level.logs, i, `order${k + 2}.prob_book`);
        orders[level.words[i]] = k + 2;
      }
    }
    return {logs, state: {history}, inside: {orders, contexts: used.map((c, k) => c < 0 ? 0 : this.levels[k].starts[c + 1] - this.levels[k].starts[c])}};
  }

  quantity(tensor, index, book) {
    const codes = this.t[book];
    return codes ? codes.data[tensor.data[index]] : tensor.data[index];
  }
}

class Mixture {
  constructor(parts, weights) {
    this.parts = parts;
    this.weights = weights;
  }

  start() { return this.parts.map((part) => part.start()); }

  step(state, token) {
    const steps = this.parts.map((part, i) => part.step(state[i], token));
    const logs = new Float32Array(steps[0].logs.length);
    for (let w = 0; w < logs.length; w++) {
      let sum = 0;
      for (let i = 0; i < steps.length; i++) sum += this.weights[i] * Math.exp(steps[i].logs[w]);
      logs[w] = Math.log(sum);
    }
    return {logs, state: steps.map((step) => step.state), inside: {parts: steps.map((step) => step.inside)}};
  }
}

function modelOf(spec, buffer, earlier) {
  if (spec.family === "earlier") return earlier[spec.run].model;
  if (spec.family === "mixture") return new Mixture(spec.components.map((part) => modelOf(part, buffer, earlier)), spec.weights);
  const tensors = tensorsOf(spec.tensors, buffer);
  // Tied weights stand in the file once.
  for (const [name, other] of Object.entries(spec.shared || {})) tensors[name] = tensors[other];
  if (spec.family === "ngram") return new NGram(spec, tensors);
  return spec.family === "transformer" ? new Transformer(spec, tensors) : new Recurrent(spec, tensors);
}
