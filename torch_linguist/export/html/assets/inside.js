"use strict";
// What a model does on the way: gates and hidden units, attention, orders of the n-gram that were used.

function heatmap(rows, names, columns, label, low, high) {
  const table = make("table", {class: "heat"});
  const head = make("tr", {}, make("th", {scope: "col"}, ""));
  columns.forEach((column) => head.append(make("th", {scope: "col"}, column)));
  table.append(head);
  rows.forEach((values, r) => {
    const line = make("tr", {}, make("th", {scope: "row"}, names[r]));
    Array.from(values).forEach((value, c) => {
      const cell = make("td", {title: `${names[r]}, ${columns[c]}: ${Number(value).toFixed(3)}`});
      const share = (value - low) / (high - low);
      cell.style.setProperty(share >= 0.5 ? "--warm" : "--cool", Math.min(1, Math.abs(2 * share - 1)));
      line.append(cell);
    });
    table.append(line);
  });
  return titled(table, label);
}

// A table that scrolls under its title.
function titled(table, title) {
  table.setAttribute("aria-label", title);
  return make("section", {}, make("p", {}, title), make("div", {class: "scroll"}, table));
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

// The units that change most over the text.
function liveliest(vectors, count) {
  const size = vectors[0].length;
  const spread = Array.from({length: size}, (_, k) => {
    const values = vectors.map((vector) => vector[k]), middle = mean(values);
    return {k, value: mean(values.map((value) => (value - middle) ** 2))};
  });
  return spread.sort((a, b) => b.value - a.value).slice(0, count).map((one) => one.k);
}

function recurrentViews(steps, names) {
  const views = [], insides = steps.map((step) => step.inside);
  const gates = ["input", "forget", "output", "reset", "update"].filter((gate) => insides[0][gate]);
  if (gates.length) {
    views.push(heatmap(gates.map((gate) => insides.map((one) => mean(Array.from(one[gate])))), gates.map((gate) => `${gate} gate`), names, "Gates of the last layer, mean over the units (0 closed, 1 open)", 0, 1));
  }
  for (const part of ["cell", "hidden"]) {
    const vectors = insides.map((one) => one[part]).filter(Boolean);
    if (!vectors.length) continue;
    const units = liveliest(vectors, 24);
    views.push(heatmap(units.map((k) => vectors.map((vector) => Math.tanh(vector[k]))), units.map((k) => `unit ${k}`), names, `${part === "cell" ? "Cell" : "Hidden vector"} of the last layer, the 24 units that change most`, -1, 1));
  }
  return views;
}

function attentionViews(model, steps, names, choice) {
  const [layer, head] = choice.split(".").map(Number);
  const rows = steps.map((step) => {
    const weights = step.inside.attention[layer][head], row = new Array(steps.length).fill(0);
    // The first position is <eos>, which stands before the text.
    weights.forEach((weight, place) => { const at = step.state.position - weights.length + place - 1; if (at >= 0) row[at] = weight; });
    return row;
  });
  const title = `Attention, layer ${layer + 1}, head ${head + 1}`;
  return [attentionLine(rows, names, title), heatmap(rows, names, names, `${title}: each row's word looks at the columns`, -1, 1)];
}

// The text itself: a word that is pointed at or focused colors those that it attends to.
function attentionLine(rows, names, title) {
  const words = names.map((name) => make("button", {class: "token", type: "button"}, name));
  const show = (n) => words.forEach((word, place) => {
    word.style.setProperty("--heat", rows[n][place]);
    word.classList.toggle("chosen", place === n);
    word.title = `${names[n]}, ${names[place]}: ${rows[n][place].toFixed(3)}`;
  });
  words.forEach((word, n) => ["mouseenter", "focus", "click"].forEach((event) => word.addEventListener(event, () => show(n))));
  show(names.length - 1);
  return make("section", {}, make("p", {}, `${title}: point at a word to see where it looks`), make("div", {class: "tokens"}, ...words));
}

function ngramViews(steps, names, tokens) {
  const lengths = steps[0].inside.contexts.map((_, n) => String(n + 1)), table = make("table", {class: "plain"});
  table.append(make("tr", {}, ...["word", "order", ...lengths].map((title) => make("th", {scope: "col"}, title))));
  names.forEach((name, n) => {
    const {orders, contexts} = steps[n].inside, cells = [orders[tokens[n]], ...contexts].map((value) => make("td", {}, String(value)));
    table.append(make("tr", {}, make("th", {scope: "row"}, name), ...cells));
  });
  return [titled(table, "The order that each word's probability comes from, and how many different words followed the last 1, 2, … words in training")];
}

// `steps` begins with what the model predicts before the first word.
function insideViews(model, steps, names, choice) {
  if (model instanceof Mixture) {
    return model.parts.flatMap((part, i) => insideViews(part, steps.map((step) => ({...step, inside: step.inside.parts[i], state: step.state[i]})), names, choice));
  }
  if (model instanceof Transformer) {
    const select = byId("inside-unit");
    if (!select.options.length) {
      for (let l = 0; l < model.spec.layers; l++) for (let h = 0; h < model.spec.heads; h++) select.append(make("option", {value: `${l}.${h}`}, `layer ${l + 1}, head ${h + 1}`));
    }
    byId("inside-choice").hidden = false;
    return attentionViews(model, steps.slice(1), names, choice || "0.0");
  }
  if (model instanceof NGram) return ngramViews(steps, names, page.encoded.map((piece) => piece.id));
  return recurrentViews(steps.slice(1), names);
}

let page;
// Tests of the page reach the models by this.
const ready = (async () => {
  const data = JSON.parse(byId("data").textContent);
  const runs = [];
  for (const run of data.runs) {
    if (!run.model) { runs.push({label: run.label, tokenizer: new Tokenizer(run.tokenizer)}); continue; }
    const buffer = await unpacked(byId(run.weights).textContent);
    byId(run.weights).remove();
    runs.push({label: run.label, model: modelOf(run.model, buffer, runs), tokenizer: new Tokenizer(run.tokenizer)});
  }
  page = new Page(runs);
  await page.settled;
  byId("loading").hidden = true;
  byId("app").hidden = false;
  return page;
})().catch((error) => { byId("loading").textContent = `This browser cannot run the model: ${error.message}`; throw error; });
