"use strict";
// Weights out of the page: one block of bytes, a description of what lies where.
// Matrices are int8 with one scale a row, or float32. A matrix times a vector is the whole of a network's cost.

const TYPES = {
  int8: Int8Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array,
};

async function unpacked(base64) {
  const text = atob(base64.trim());
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

class Tensor {
  constructor(entry, buffer) {
    const count = entry.shape.reduce((a, b) => a * b, 1);
    this.shape = entry.shape;
    this.data = new TYPES[entry.type](buffer, entry.offset, count);
    this.scales = entry.scales === undefined ? null : new Float32Array(buffer, entry.scales, entry.shape[0]);
  }

  get rows() { return this.shape[0]; }

  get width() { return this.shape[1] || 1; }

  // Row `index` as float32 numbers.
  row(index) {
    const width = this.width;
    const out = new Float32Array(width);
    const scale = this.scales ? this.scales[index] : 1;
    for (let j = 0, k = index * width; j < width; j++, k++) out[j] = this.data[k] * scale;
    return out;
  }

  // One row times a vector.
  dot(index, vector) {
    const data = this.data, width = this.width;
    let a = 0, b = 0, c = 0, d = 0, j = 0, k = index * width;
    for (; j + 3 < width; j += 4, k += 4) {
      a += data[k] * vector[j];
      b += data[k + 1] * vector[j + 1];
      c += data[k + 2] * vector[j + 2];
      d += data[k + 3] * vector[j + 3];
    }
    for (; j < width; j++, k++) a += data[k] * vector[j];
    const sum = a + b + c + d;
    return this.scales ? sum * this.scales[index] : sum;
  }

  // The matrix times a vector, plus a bias.
  times(vector, bias) {
    const out = new Float32Array(this.rows), {data, scales, width} = this;
    let i = 0;
    // Four rows at a time, so that each number of the vector is read once for them.
    for (; i + 3 < out.length; i += 4) {
      let a = 0, b = 0, c = 0, d = 0;
      for (let j = 0, k = i * width, l = k + width, m = l + width, n = m + width; j < width; j++, k++, l++, m++, n++) {
        const x = vector[j];
        a += data[k] * x;
        b += data[l] * x;
        c += data[m] * x;
        d += data[n] * x;
      }
      const sums = [a, b, c, d];
      for (let r = 0; r < 4; r++) out[i + r] = (scales ? sums[r] * scales[i + r] : sums[r]) + (bias ? bias.data[i + r] : 0);
    }
    for (; i < out.length; i++) out[i] = this.dot(i, vector) + (bias ? bias.data[i] : 0);
    return out;
  }
}

function tensorsOf(entries, buffer) {
  const found = {};
  for (const name of Object.keys(entries)) found[name] = new Tensor(entries[name], buffer);
  return found;
}

// Logits to log-probabilities, in place.
function logSoftmax(logits) {
  let top = -Infinity, sum = 0;
  for (let i = 0; i < logits.length; i++) if (logits[i] > top) top = logits[i];
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - top);
  const total = top + Math.log(sum);
  for (let i = 0; i < logits.length; i++) logits[i] -= total;
  return logits;
}
