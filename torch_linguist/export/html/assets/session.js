"use strict";
// A text and a model: the log-probabilities after each token, computed once and kept for what stays the same.

class Session {
  constructor(run) {
    this.run = run;
    this.model = run.model;
    this.tokenizer = run.tokenizer;
    // all[n] holds the prediction after the first n tokens of `known`, <eos> before them.
    this.known = [];
    this.all = [];
    this.steps = [];
  }

  // Resolves to true once `read` can answer; here the model is in the page.
  async prepare() { return true; }

  // Resolves to a session whose model is in the page.
  async local() { return this; }

  // The predictions within a text; what an earlier text began with is not computed again.
  read(ids) {
    const same = this.keep(ids);
    if (same < ids.length || !this.all.length) {
      if (!this.all.length) this.all.push(this.model.step(this.model.start(), this.tokenizer.eos));
      for (let n = same; n < ids.length; n++) this.all.push(this.model.step(this.all[n].state, ids[n]));
      this.known = [...ids];
    }
    this.steps = this.all.slice(0, ids.length + 1);
    return this.steps;
  }

  // Drops what does not belong to a text or its continuations; returns how many of its tokens are known.
  keep(ids) {
    let same = 0;
    while (same < ids.length && same < this.known.length && ids[same] === this.known[same]) same++;
    if (same < ids.length) {
      this.known.length = same;
      this.all.length = Math.min(this.all.length, same + 1);
    }
    return same;
  }

  // Surprisal of each token in bits, given those before it.
  surprisals(ids) {
    const steps = this.read(ids);
    return ids.map((id, n) => -steps[n].logs[id] / Math.LN2);
  }

  last() { return this.steps[this.steps.length - 1]; }
}

// The likeliest tokens: [{id, share}], those that pass `wanted` alone, shares of all that pass.
function likeliest(logs, count, wanted) {
  const best = [];
  let mass = 0;
  for (let id = 0; id < logs.length; id++) {
    if (!wanted(id)) continue;
    const share = Math.exp(logs[id]);
    mass += share;
    if (best.length < count || share > best[best.length - 1].share) {
      let place = best.length;
      while (place > 0 && best[place - 1].share < share) place--;
      best.splice(place, 0, {id, share});
      if (best.length > count) best.pop();
    }
  }
  return best.map((one) => ({id: one.id, share: one.share / (mass || 1), whole: one.share}));
}

// Random numbers that a seed repeats (mulberry32).
function randomOf(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// Draws the next token: temperature, then the k likeliest, then the smallest set of mass p.
function drawn(logs, options, random, banned) {
  if (options.temperature === 0) return likeliest(logs, 1, (id) => id !== banned)[0].id;
  const scaled = Float32Array.from(logs, (value, id) => (id === banned ? -Infinity : value / options.temperature));
  logSoftmax(scaled);
  let order = Array.from(scaled.keys()).filter((id) => scaled[id] > -30).sort((a, b) => scaled[b] - scaled[a]);
  if (options.topK > 0) order = order.slice(0, options.topK);
  let mass = 0;
  const kept = [];
  for (const id of order) {
    kept.push(id);
    mass += Math.exp(scaled[id]);
    if (mass >= options.topP) break;
  }
  let point = random() * mass;
  for (const id of kept) { point -= Math.exp(scaled[id]); if (point <= 0) return id; }
  return kept[kept.length - 1];
}
