"use strict";
// Text to token ids as the run's own tokenizer cuts it, each token with its place in the text.

const BLANK = "\\u0009-\\u000d \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const WORD = "<unk>|<eos>|(?:\\p{L}\\.){2,}|[\\p{L}\\p{M}\\p{N}_]+(?:(?:['’-]|(?<=\\p{N})[.,](?=\\p{N}))[\\p{L}\\p{M}\\p{N}_]+)*|-{2,}|\\.{2,}" +
  `|[^${BLANK}\\p{L}\\p{M}\\p{N}_]`;
const PIECES = `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${BLANK}\\p{L}\\p{N}]+|[${BLANK}]+(?![^${BLANK}])|[${BLANK}]+`;

class Tokenizer {
  constructor(spec) {
    this.spec = spec;
    this.tokens = spec.tokens;
    this.ids = new Map(spec.tokens.map((token, id) => [token, id]));
    this.eos = spec.eos_id;
    this.unk = spec.unk_id;
    this.ranks = new Map((spec.merges || []).map((merge, rank) => [merge, rank]));
    this.signs = byteSigns();
    this.bytes = new Map(this.signs.map((sign, value) => [sign, value]));
    this.decoder = new TextDecoder();
    this.wordLevel = spec.kind === "word";
  }

  normalized(text) {
    for (const [type, pattern, content] of this.spec.normalizers) {
      if (type === "Lowercase") text = text.toLowerCase();
      else if (type === "StripAccents") text = text.replace(/\p{Mn}/gu, "");
      else if (type === "Replace") text = text.replace(new RegExp(pattern, "gu"), content);
      else text = text.normalize(type);
    }
    return text;
  }

  // [{id, text, begin, end}] of a text; a newline becomes <eos>. Places are those in the normalized text.
  encode(text) {
    const found = [];
    let begin = 0;
    for (const line of text.split("\n")) {
      if (begin > 0) found.push({id: this.eos, text: "\n", begin: begin - 1, end: begin});
      for (const piece of this.line(line)) found.push({...piece, begin: begin + piece.begin, end: begin + piece.end});
      begin += line.length + 1;
    }
    return found;
  }

  line(line) {
    if (this.wordLevel) {
      const pattern = this.spec.split === "whitespace" ? `[^${BLANK}]+` : WORD;
      return [...line.matchAll(new RegExp(pattern, "gu"))].map((match) => this.piece(match[0], match.index));
    }
    const found = [];
    let begin = 0;
    line.split("<unk>").forEach((part, index) => {
      if (index > 0) { found.push({id: this.unk, text: "<unk>", begin, end: begin + 5}); begin += 5; }
      for (const piece of this.parts(part)) found.push({...piece, begin: begin + piece.begin, end: begin + piece.end});
      begin += part.length;
    });
    return found;
  }

  piece(text, begin) {
    const id = this.ids.get(text);
    return {id: id === undefined ? this.unk : id, text, begin, end: begin + text.length};
  }

  parts(text) {
    if (this.spec.kind === "char") {
      let begin = 0;
      return [...text].map((sign) => { const piece = this.piece(sign, begin); begin += sign.length; return piece; });
    }
    if (this.spec.kind === "byte") return this.located(text, 0, this.written(text).split(""));
    const found = [];
    for (const match of text.matchAll(new RegExp(PIECES, "gu"))) {
      const signs = this.written(match[0]);
      found.push(...this.located(match[0], match.index, this.spec.kind === "bpe" ? this.merged(signs) : this.likeliest(signs)));
    }
    return found;
  }

  // Bytes as the visible characters that stand for them.
  written(text) { return Array.from(new TextEncoder().encode(text), (value) => this.signs[value]).join(""); }

  // Tokens of signs with the place of the characters that they begin in.
  located(text, begin, tokens) {
    const starts = [];
    let place = 0;
    for (const sign of text) {
      const size = new TextEncoder().encode(sign).length;
      for (let i = 0; i < size; i++) starts.push([place, place + sign.length]);
      place += sign.length;
    }
    let byte = 0;
    return tokens.map((token) => {
      const size = [...token].length;
      const piece = {
        id: this.ids.has(token) ? this.ids.get(token) : this.unk, text: this.surface(token),
        begin: begin + starts[byte][0], end: begin + starts[byte + size - 1][1],
      };
      byte += size;
      return piece;
    });
  }

  merged(signs) {
    const parts = [...signs];
    for (;;) {
      let best = Infinity, where = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`);
        if (rank !== undefined && rank < best) { best = rank; where = i; }
      }
      if (where < 0) return parts;
      parts.splice(where, 2, parts[where] + parts[where + 1]);
    }
  }

  // The cut with the highest probability (unigram tokenizers), by dynamic programming.
  likeliest(signs) {
    const letters = [...signs], best = [0], from = [0];
    for (let end = 1; end <= letters.length; end++) {
      best.push(-Infinity); from.push(end - 1);
      for (let begin = Math.max(0, end - this.spec.longest); begin < end; begin++) {
        const id = this.ids.get(letters.slice(begin, end).join(""));
        if (id !== undefined && best[begin] + this.spec.scores[id] > best[end]) { best[end] = best[begin] + this.spec.scores[id]; from[end] = begin; }
      }
    }
    const parts = [];
    for (let end = letters.length; end > 0; end = from[end]) parts.unshift(letters.slice(from[end], end).join(""));
    return parts;
  }

  // A token as a person reads it.
  surface(token) {
    if (this.wordLevel || this.spec.kind === "char") return token;
    const values = [...token].map((sign) => this.bytes.get(sign));
    return values.every((value) => value !== undefined) ? this.decoder.decode(Uint8Array.from(values)) : token;
  }

  // What a token adds to a text that a person goes on writing.
  appended(id, text) {
    if (id === this.eos) return "\n";
    const token = this.tokens[id];
    if (!this.wordLevel) return this.surface(token);
    const atStart = text === "" || /\s$/.test(text);
    const glued = this.spec.split !== "whitespace" && (/^[,.;:!?%)\]}…’”]/.test(token) || /[(\[{$£“]$/.test(text));
    return atStart || glued ? token : ` ${token}`;
  }
}

function byteSigns() {
  let beyond = 0x100;
  return Array.from({length: 256}, (_, value) => {
    const visible = (value >= 0x21 && value < 0x7f) || (value >= 0xa1 && value < 0xad) || value >= 0xae;
    return String.fromCodePoint(visible ? value : beyond++);
  });
}
