"use strict";
// The neural families, one token at a time: step(state, token) -> {logs, state, inside}.
// `logs` are log-probabilities of every token; `inside` is what the page shows of the computation.

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

class OutputLayer {
  constructor(spec, tensors) {
    this.spec = spec;
    this.t = tensors;
  }

  logs(hidden) {
    return this.spec.kind === "adaptive" ? this.adaptive(hidden) : logSoftmax(this.t["output.weight"].times(hidden, this.t["output.bias"]));
  }

  // The head's tokens, then the clusters; within a cluster the tokens share the cluster's probability.
  adaptive(hidden) {
    const t = this.t, head = this.spec.head_size, clusters = this.spec.clusters;
    const order = t["output.id_of_rank"].data, top = new Float32Array(head + clusters);
    for (let i = 0; i < head; i++) {
      const row = this.spec.tied ? order[i] : i;
      top[i] = t["output.head_weight"].dot(row, hidden) + t["output.head_bias"].data[i];
    }
    for (let c = 0; c < clusters; c++) {
      top[head + c] = t["output.cluster_weight"].dot(c, hidden) + t["output.head_bias"].data[head + c];
    }
    logSoftmax(top);
    const logs = new Float32Array(order.length);
    for (let i = 0; i < head; i++) logs[order[i]] = top[i];
    let rank = head;
    for (let c = 0; c < clusters; c++) {
      const inner = t[`output.projections.${c}`].times(hidden);
      const within = logSoftmax(t[`output.tails.${c}.weight`].times(inner, t[`output.tails.${c}.bias`]));
      for (let i = 0; i < within.length; i++, rank++) logs[order[rank]] = within[i] + top[head + c];
    }
    return logs;
  }
}

class Recurrent {
  constructor(spec, tensors) {
    this.spec = spec;
    this.t = tensors;
    this.output = new OutputLayer(spec.output, tensors);
  }

  start() {
    const zeros = () => Array.from({length: this.spec.layers}, () => new Float32Array(this.spec.hidden));
    return {h: zeros(), c: zeros()};
  }

  step(state, token) {
    const next = {h: [], c: []}, inside = {};
    let x = this.t.embedding.row(token);
    for (let layer = 0; layer < this.spec.layers; layer++) {
      const of = (name) => this.t[`layers.${layer}.${name}`];
      const fromInput = of("weight_ih").times(x, of("bias_ih"));
      const fromState = of("weight_hh").times(state.h[layer], of("bias_hh"));
      const made = this[this.spec.family](fromInput, fromState, state.h[layer], state.c[layer]);
      next.h.push(made.h);
      next.c.push(made.c);
      if (layer === this.spec.layers - 1) Object.assign(inside, made.inside, {hidden: made.h});
      x = made.h;
    }
    if (this.t.projection) x = this.t.projection.times(x);
    return {logs: this.output.logs(x), state: next, inside};
  }

  lstm(a, b, h, c) {
    const size = h.length, out = new Float32Array(size), cell = new Float32Array(size);
    const gates = {input: new Float32Array(size), forget: new Float32Array(size), output: new Float32Array(size)};
    for (let k = 0; k < size; k++) {
      const input = sigmoid(a[k] + b[k]), forget = sigmoid(a[size + k] + b[size + k]);
      const candidate = Math.tanh(a[2 * size + k] + b[2 * size + k]);
      const output = sigmoid(a[3 * size + k] + b[3 * size + k]);
      cell[k] = forget * c[k] + input * candidate;
      out[k] = output * Math.tanh(cell[k]);
      gates.input[k] = input; gates.forget[k] = forget; gates.output[k] = output;
    }
    return {h: out, c: cell, inside: {...gates, cell}};
  }

  gru(a, b, h) {
    const size = h.length, out = new Float32Array(size);
    const reset = new Float32Array(size), update = new Float32Array(size);
    for (let k = 0; k < size; k++) {
      reset[k] = sigmoid(a[k] + b[k]);
      update[k] = sigmoid(a[size + k] + b[size + k]);
      const candidate = Math.tanh(a[2 * size + k] + reset[k] * b[2 * size + k]);
      out[k] = (1 - update[k]) * candidate + update[k] * h[k];
    }
    return {h: out, c: out, inside: {reset, update}};
  }

  rnn(a, b, h) {
    const out = new Float32Array(h.length);
    for (let k = 0; k < h.length; k++) {
      const sum = a[k] + b[k];
      out[k] = this.spec.nonlinearity === "relu" ? Math.max(0, sum) : Math.tanh(sum);
    }
    return {h: out, c: out, inside: {}};
  }
}

class Transformer {
  constructor(spec, tensors) {
    this.spec = spec;
    this.t = tensors;
    this.output = new OutputLayer(spec.output, tensors);
    this.width = spec.width;
    this.size = spec.width / spec.heads;
    this.frequencies = Float32Array.from({length: this.size / 2}, (_, i) => Math.pow(10000, -2 * i / this.size));
  }

  start(position = 0) {
    return {position, tokens: [], keys: Array.from({length: this.spec.layers}, () => []), values: Array.from({length: this.spec.layers}, () => [])};
  }

  norm(x, weight) {
    let sum = 0;
    for (let i = 0; i < x.length; i++) sum += x[i] * x[i];
    const scale = 1 / Math.sqrt(sum / x.length + 1e-6);
    return x.map((value, i) => value * scale * weight.data[i]);
  }

  // Scores depend on distances alone, so positions may count on without end.
  rotated(part, position) {
    const out = new Float32Array(this.width), half = this.size / 2;
    for (let head = 0; head < this.spec.heads; head++) {
      for (let i = 0; i < half; i++) {
        const angle = position * this.frequencies[i], cosine = Math.cos(angle), sine = Math.sin(angle);
        const a = part[head * this.size + i], b = part[head * this.size + half + i];
        out[head * this.size + i] = a * cosine - b * sine;
        out[head * this.size + half + i] = b * cosine + a * sine;
      }
    }
    return out;
  }

  step(state, token) {
    if (state.tokens.length === this.spec.context) {
      // The next window begins half a context later, as in the scores of tl-eval.
      const kept = state.tokens.slice(Math.max(1, this.spec.context >> 1));
      state = this.start(state.position - kept.length);
      for (const one of kept) state = this.encode(state, one).state;
    }
    const {x, state: next, attention} = this.encode(state, token);
    return {logs: this.output.logs(this.norm(x, this.t.norm)), state: next, inside: {attention}};
  }

  encode(state, token) {
    const next = {position: state.position + 1, tokens: [...state.tokens, token], keys: [], values: []}, attention = [];
    let x = this.t.embedding.row(token);
    for (let layer = 0; layer < this.spec.layers; layer++) {
      const of = (name) => this.t[`blocks.${layer}.${name}`];
      const packed = of("query_key_value").times(this.norm(x, of("attention_norm")));
      const query = this.rotated(packed.subarray(0, this.width), state.position);
      const keys = [...state.keys[layer], this.rotated(packed.subarray(this.width, 2 * this.width), state.position)];
      const values = [...state.values[layer], packed.slice(2 * this.width)];
      next.keys.push(keys);
      next.values.push(values);
      const attended = this.attend(query, keys, values, attention);
      x = added(x, of("attention_out").times(attended));
      const inner = of("feed_forward_in").times(this.norm(x, of("feed_forward_norm")));
      x = added(x, of("feed_forward_out").times(this.spec.gated ? swiglu(inner) : inner.map(gelu)));
    }
    return {x, state: next, attention};
  }

  attend(query, keys, values, attention) {
    const out = new Float32Array(this.width), heads = [];
    for (let head = 0; head < this.spec.heads; head++) {
      const from = head * this.size, to = from + this.size;
      const scores = keys.map((key) => {
        let sum = 0;
        for (let i = from; i < to; i++) sum += query[i] * key[i];
        return sum / Math.sqrt(this.size);
      });
      const weights = logSoftmax(scores).map(Math.exp);
      weights.forEach((weight, place) => { for (let i = from; i < to; i++) out[i] += weight * values[place][i]; });
      heads.push(weights);
    }
    attention.push(heads);
    return out;
  }
}

const added = (x, y) => x.map((value, i) => value + y[i]);

function swiglu(inner) {
  const half = inner.length / 2, out = new Float32Array(half);
  for (let i = 0; i < half; i++) out[i] = inner[i] * sigmoid(inner[i]) * inner[half + i];
  return out;
}

// The error function by its series near zero and by a continued fraction further out, to double precision.
function erf(x) {
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  let value;
  if (z < 2.5) {
    let term = z, sum = z;
    for (let n = 1; n < 60; n++) { term *= -z * z / n; sum += term / (2 * n + 1); }
    value = 2 / Math.sqrt(Math.PI) * sum;
  } else {
    let fraction = 0;
    for (let n = 60; n > 0; n--) fraction = n / 2 / (z + fraction);
    value = 1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction);
  }
  return Math.sign(x) * value;
}

const gelu = (x) => 0.5 * x * (1 + erf(x / Math.SQRT2));
