// The page: choose a layer, a head and a length; point at a block and read why it is kept.
"use strict";

const pattern = JSON.parse(document.getElementById("data").textContent);
const get = (id) => document.getElementById(id);
const ALL = "all"; // the choice "all heads": how many of them keep each block
const state = { layer: pattern.layer, head: pattern.head ?? ALL, rows: pattern.rows, i: pattern.rows - 1, j: 0 };
let grid = []; // [row * rows + column]: part of the chosen head, or number of heads, and -1 where none

// ---- colours ------------------------------------------------------------------------------------------------

const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const parse = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
const blend = (a, b, share) => a.map((x, k) => Math.round(x + (b[k] - x) * share));
const css = (colour) => `rgb(${colour.join(" ")})`;

function palette() {
  const paper = parse(variable("paper"));
  const hue = (part) => parse(pattern.colours[part.kind]);
  return {
    field: parse(variable("field")),
    part: (part) => (part.whole ? hue(part) : blend(hue(part), paper, 0.5)),
    kind: (kind) => blend(parse(variable("field")), parse(pattern.colours[kind.hue] ?? variable("field")), kind.strength),
    count(count) {
      if (count <= 0) return parse(variable("unseen"));
      const heads = headsOf(state.layer).length;
      const share = heads > 1 ? Math.sqrt((count - 1) / (heads - 1)) : 1;
      return blend(parse(variable("count-one")), parse(variable("count-all")), share);
    },
  };
}

// ---- what is kept -------------------------------------------------------------------------------------------

const classOf = (layer, head) => pattern.rows_of[pattern.layer_row[layer]][head];
const headsOf = (layer) => pattern.rows_of[pattern.layer_row[layer]];

const known = { rows: 0, grids: new Map() }; // the grids of the classes at the length now shown

function gridOf(klass) {
  if (known.rows !== state.rows) [known.rows, known.grids] = [state.rows, new Map()];
  if (!known.grids.has(klass)) known.grids.set(klass, classGrid(pattern, klass, state.rows));
  return known.grids.get(klass);
}

function chosenGrid() {
  if (state.head !== ALL) return gridOf(classOf(state.layer, state.head));
  const heads = new Map();
  for (const klass of headsOf(state.layer)) heads.set(klass, (heads.get(klass) ?? 0) + 1);
  const counts = new Int16Array(state.rows * state.rows);
  for (const [klass, weight] of heads) gridOf(klass).forEach((part, k) => { if (part >= 0) counts[k] += weight; });
  return counts;
}

function rowWeights(klass) {
  const cells = gridOf(klass), { rows } = state;
  return Array.from({ length: rows }, (_, i) => cells.subarray(i * rows, (i + 1) * rows).reduce((n, part) => n + (part >= 0), 0));
}

// ---- drawing ------------------------------------------------------------------------------------------------

function paint(canvas, rows, colourOf, cells) {
  const image = new ImageData(rows, rows);
  const colours = new Map();
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < (pattern.causal ? i + 1 : rows); j++) {
      const value = cells[i * rows + j];
      if (!colours.has(value)) colours.set(value, [...colourOf(value), 255]);
      image.data.set(colours.get(value), 4 * (i * rows + j));
    }
  }
  const small = Object.assign(document.createElement("canvas"), { width: rows, height: rows });
  small.getContext("2d").putImageData(image, 0, 0);
  const side = Math.round((canvas.clientWidth || 100) * (window.devicePixelRatio || 1));
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = rows > side;
  context.drawImage(small, 0, 0, side, side);
}

function draw() {
  const colours = palette(), { rows, head, layer } = state;
  grid = chosenGrid();
  const parts = head === ALL ? [] : pattern.classes[classOf(layer, head)].parts;
  const colourOf = head === ALL ? colours.count : (k) => (k < 0 ? colours.field : colours.part(parts[k]));
  paint(get("cells"), rows, colourOf, grid);
  get("cells").setAttribute("aria-label", head === ALL
    ? `How many heads of layer ${layer} keep each of ${rows} by ${rows} blocks`
    : `The blocks that head ${head} of layer ${layer} keeps, ${rows} by ${rows}`);
  legend(colours, parts);
  get("length").textContent = `${(rows * pattern.block).toLocaleString("en")} tokens (${rows} block${rows === 1 ? "" : "s"})`;
  if (get("text").open) get("table").textContent = text();
  plots();
  explain();
  map(colours);
  for (const button of get("classes").children) {
    button.setAttribute("aria-pressed", String(head !== ALL && Number(button.dataset.klass) === classOf(layer, head)));
  }
}

function legend(colours, parts) {
  const entries = new Map();
  if (state.head === ALL) {
    const seen = new Set();
    for (let i = 0; i < state.rows; i++) for (let j = 0; j < (pattern.causal ? i + 1 : state.rows); j++) seen.add(grid[i * state.rows + j]);
    const counts = [...seen].sort((a, b) => a - b), step = Math.ceil(counts.length / 8);
    for (const n of counts.filter((_, k) => k % step === 0 || k === counts.length - 1)) {
      entries.set(n === 0 ? "no head" : `${n} head${n > 1 ? "s" : ""}`, colours.count(n));
    }
  } else {
    for (const part of parts) entries.set(part.whole ? part.kind : `${part.kind}, in part`, colours.part(part));
    entries.set("not kept", colours.field);
  }
  get("legend").replaceChildren(...[...entries].map(([word, colour]) => {
    const item = document.createElement("li"), swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = css(colour);
    item.append(swatch, word);
    return item;
  }));
}

function text() {
  const { rows } = state, lines = [];
  for (let i = 0; i < rows; i++) {
    const kept = [];
    for (let j = 0; j < rows; j++) {
      const value = grid[i * rows + j];
      if (state.head === ALL ? value > 0 : value >= 0) kept.push(j);
    }
    lines.push(`${i}: ${ranges(kept)}`.trimEnd());
  }
  return lines.join("\n");
}

// ---- every head of every layer ------------------------------------------------------------------------------

const kindOf = (layer, head) => pattern.kinds[pattern.kind_of[classOf(layer, head)]];
const widest = Math.max(...pattern.rows_of.map((row) => row.length));

function map(colours) {
  const canvas = get("map"), layers = pattern.layer_row.length;
  const room = Math.min(get("map-section").clientWidth || 512, 512), ratio = window.devicePixelRatio || 1;
  const wide = Math.max(1, Math.min(18, room / widest)), high = Math.max(4, Math.min(20, Math.max(wide, 10), 480 / layers));
  canvas.style.cssText = `width:${wide * widest}px;height:${high * layers}px`;
  [canvas.width, canvas.height] = [Math.round(wide * widest * ratio), Math.round(high * layers * ratio)];
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const gap = wide >= 6 && high >= 6 ? 1 : 0;
  pattern.layer_row.forEach((row, layer) => pattern.rows_of[row].forEach((klass, head) => {
    context.fillStyle = css(colours.kind(pattern.kinds[pattern.kind_of[klass]]));
    const size = pattern.groups[row]; // query heads of one KV head
    const part = gap && head && size > 1 && head % size === 0 ? 1.5 : 0; // heads of one KV head stand closer together
    context.fillRect(head * wide + part, layer * high, wide - gap - part, high - gap);
  }));
  letters(context, wide, high, colours);
  context.strokeStyle = variable("ink");
  context.lineWidth = 2;
  const { layer, head } = state;
  if (head === ALL) context.strokeRect(1, layer * high, wide * widest - 2, high - gap);
  else context.strokeRect(head * wide, layer * high, wide - gap, high - gap);
  canvas.setAttribute("aria-label", `The kinds of ${widest} heads in ${layers} layers`);
  get("kinds").replaceChildren(...pattern.kinds.map((kind) => {
    const letter = document.createElement("span"), colour = colours.kind(kind);
    [letter.className, letter.textContent] = ["letter", kind.letter];
    letter.style.cssText = `background:${css(colour)};color:${inkOn(colour)}`;
    const count = `${kind.count.toLocaleString("en")} head${kind.count === 1 ? "" : "s"}`;
    const row = line([`${kind.parts}: ${kind.density} kept`, kind.rule, [count, kind.where].filter(Boolean).join(": ")], false);
    row.cells[0].prepend(letter);
    return row;
  }));
}

/** The kind's letter where it begins: at the left of its cells, unless it stands there in the layer above, too. */
function letters(context, wide, high, colours) {
  if (high < 9) return;
  context.font = `600 ${Math.min(11, high)}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const begins = (layer, head) => (head === 0 || kindOf(layer, head - 1) !== kindOf(layer, head) ? kindOf(layer, head) : null);
  pattern.layer_row.forEach((row, layer) => pattern.rows_of[row].forEach((_, head) => {
    const kind = begins(layer, head), there = layer > 0 && head < headsOf(layer - 1).length;
    if (kind === null || (there && begins(layer - 1, head) === kind)) return;
    context.fillStyle = inkOn(colours.kind(kind));
    context.fillText(kind.letter, head * wide + 3, (layer + 0.5) * high);
  }));
}

const inkOn = (colour) => (luminance(colour) > 0.3 ? "#1f2733" : "#ffffff");
const luminance = (colour) => colour.map((x) => (x / 255) ** 2.2).reduce((sum, x, k) => sum + x * [0.2126, 0.7152, 0.0722][k], 0);

/** The layer and head of a cell of the map that an event points at. */
function cellAt(event) {
  const box = get("map").getBoundingClientRect(), layers = pattern.layer_row.length;
  const layer = Math.min(layers - 1, Math.max(0, Math.floor(((event.clientY - box.top) * layers) / box.height)));
  const head = Math.min(widest - 1, Math.max(0, Math.floor(((event.clientX - box.left) * widest) / box.width)));
  return { layer, head: Math.min(head, headsOf(layer).length - 1) };
}

function name({ layer, head }) {
  const kind = kindOf(layer, head);
  get("map-place").textContent = `layer ${layer}, head ${head}: ${kind.parts}, ${kind.density} kept (${kind.letter})`;
}

// ---- plots --------------------------------------------------------------------------------------------------

function plots() {
  const heads = state.head === ALL ? headsOf(state.layer) : [classOf(state.layer, state.head)];
  const weights = new Map(heads.map((klass) => [klass, null]));
  for (const klass of weights.keys()) weights.set(klass, rowWeights(klass));
  const dense = Array.from({ length: state.rows }, (_, i) => (pattern.causal ? i + 1 : state.rows));
  curve(get("weights"), mean(heads.map((klass) => weights.get(klass))), dense, "blocks");
  get("live-figure").hidden = !pattern.causal;
  if (!pattern.causal) return;
  const size = pattern.groups[pattern.layer_row[state.layer]], layer = headsOf(state.layer);
  const first = state.head === ALL ? 0 : Math.floor(state.head / size) * size;
  const last = state.head === ALL ? layer.length : first + size;
  const held = [], lines = new Map();
  for (let h = first; h < last; h += size) {
    const group = [...new Set(layer.slice(h, h + size))].sort((a, b) => a - b);
    const key = group.join();
    if (!lines.has(key)) lines.set(key, liveTokens(pattern, group, state.rows));
    held.push(lines.get(key));
  }
  curve(get("live"), mean(held), dense.map((n) => n * pattern.block), "tokens");
}

const mean = (lines) => lines[0].map((_, i) => lines.reduce((sum, line) => sum + line[i], 0) / lines.length);

function curve(svg, values, dense, unit) {
  const [width, height] = [340, 118], [right, top, bottom] = [296, 10, 98];
  const rows = dense.length, most = dense[rows - 1];
  const at = (line) => line.map((y, i) => `${((right * i) / Math.max(rows - 1, 1)).toFixed(1)} ${(bottom - (y / most) * (bottom - top)).toFixed(1)}`).join("L");
  const make = (name, attributes, content) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (content !== undefined) element.textContent = content;
    return element;
  };
  const end = values[rows - 1] / most, low = Math.max(bottom - end * (bottom - top), end < 0.97 ? top + 13 : top) + 4;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(
    make("path", { d: `M0 ${bottom}L${at(values)}L${right} ${bottom}z`, fill: "var(--accent)", opacity: 0.15 }),
    make("path", { d: `M${at(dense)}`, fill: "none", stroke: "var(--quiet)", "stroke-dasharray": "4 3" }),
    make("path", { d: `M${at(values)}`, fill: "none", stroke: "var(--accent)", "stroke-width": 2 }),
    make("path", { d: `M0 ${bottom}H${right}`, stroke: "var(--rule)" }),
    make("text", { x: right + 6, y: low, "font-weight": 600 }, `${(100 * end).toFixed(end < 0.1 ? 1 : 0)}%`),
    make("text", { x: 0, y: height - 4 }, "row 0"),
    make("text", { x: right, y: height - 4, "text-anchor": "end" },
      `row ${rows - 1}: ${Math.round(values[rows - 1]).toLocaleString("en")} of ${most.toLocaleString("en")} ${unit}`),
  );
  if (end < 0.97) svg.append(make("text", { x: right + 6, y: top + 4 }, "dense"));
}

// ---- why ----------------------------------------------------------------------------------------------------

function explain() {
  const { i, j, layer, head, rows } = state, { block } = pattern;
  const future = pattern.causal && j > i;
  const span = (n) => `${(n * block).toLocaleString("en")}-${((n + 1) * block - 1).toLocaleString("en")}`;
  get("place").textContent = `row ${i}, column ${j}`;
  get("row").textContent = `Query tokens ${span(i)}, key tokens ${span(j)}; distance ${i - j} block${Math.abs(i - j) === 1 ? "" : "s"}.`;
  if (head === ALL) {
    const all = headsOf(layer), keeping = [...all.keys()].filter((h) => firstPart(pattern, all[h], i, j) >= 0);
    get("verdict").textContent = future ? "In the future: no head may look" : `Kept by ${keeping.length || "none"} of ${all.length} heads`;
    get("parts").replaceChildren(...(keeping.length ? [line(["heads", ranges(keeping).replaceAll(" ", ", "), ""], true)] : []));
  } else {
    const klass = classOf(layer, head), { parts } = pattern.classes[klass], first = firstPart(pattern, klass, i, j);
    const pairs = first >= 0 && !parts[first].whole ? keptPairs(pattern, klass, i, j) : 0;
    get("verdict").textContent = future ? "In the future: not kept" : first < 0 ? "Not kept"
      : pairs ? `Kept in part, by ${parts[first].kind}` : `Kept by ${parts[first].kind}`;
    if (pairs) get("row").textContent += ` ${pairs.toLocaleString("en")} of ${(block * block).toLocaleString("en")} token pairs.`;
    get("parts").replaceChildren(...parts.map((part) => {
      const keeps = !future && holds(part, i, j, block);
      return line([part.kind, part.text, `${keeps ? "✓ " : ""}${seen(part, i, j)}`], keeps);
    }));
  }
  const frame = get("frame").clientWidth / rows, cursor = get("cursor"), size = Math.max(frame, 6);
  cursor.hidden = false;
  cursor.style.cssText = `left:${(j + 0.5) * frame - size / 2}px;top:${(i + 0.5) * frame - size / 2}px;width:${size}px;height:${size}px`;
}

/** What a part looks at in a block: the first condition that fails, or the one that tells most. */
function seen(part, i, j) {
  if (part.type === "random") return drawn(part, i).has(j) ? "drawn" : "not drawn";
  if (part.type === "mask") return i < part.rows && j < part.columns ? "in the mask" : "past its end";
  if (part.type === "chunk") return `chunks ${Math.floor(i / part.blocks)} and ${Math.floor(j / part.blocks)}`;
  if (part.type === "sink" || part.j_from !== null || part.j_to !== null) {
    if (part.type === "sink" || !within(j, part.j_from, part.j_to)) return `column ${j}`;
  }
  if (part.type === "window" || part.type === "band" || !within(i - j, part.d_from, part.d_to)) return `distance ${i - j}`;
  if (!within(i, part.i_from, part.i_to)) return `row ${i}`;
  const x = part.anchor === "j" ? j : i - j;
  if (part.every > part.width) return `${x} mod ${part.every} = ${mod(x, part.every)}`;
  if (part.i_from !== null || part.i_to !== null) return `row ${i}`;
  if (part.j_from !== null || part.j_to !== null) return `column ${j}`;
  return part.d_from !== null || part.d_to !== null ? `distance ${i - j}` : "everything";
}

function line(texts, keeps) {
  const row = document.createElement("tr");
  row.className = keeps ? "keeps" : "";
  row.append(...texts.map((content, k) => {
    const cell = document.createElement("td");
    cell.append(k === 1 ? Object.assign(document.createElement("code"), { textContent: content }) : content);
    return cell;
  }));
  return row;
}

// ---- choosing -----------------------------------------------------------------------------------------------

function choose(change, { redraw = true } = {}) {
  Object.assign(state, change);
  const bound = (x, most) => Math.min(Math.max(Number.isFinite(x) ? Math.floor(x) : 0, 0), most);
  state.rows = bound(state.rows - 1, pattern.most_rows - 1) + 1;
  state.layer = bound(state.layer, pattern.layer_row.length - 1);
  if (state.head !== ALL) state.head = bound(state.head, headsOf(state.layer).length - 1);
  state.i = bound(state.i, state.rows - 1);
  state.j = bound(state.j, state.rows - 1);
  fillHeads();
  [get("layer").value, get("head").value, get("rows").value] = [state.layer, state.head, state.rows].map(String);
  clearTimeout(addressTimer);
  addressTimer = setTimeout(toAddress, 200); // browsers refuse an address that changes with every move of the pointer
  if (redraw) draw();
  else explain();
}

let addressTimer = 0;

function toAddress() {
  const { layer, head, rows, i, j } = state;
  history.replaceState(null, "", `#layer=${layer}&head=${head}&length=${rows * pattern.block}&row=${i}&column=${j}`);
}

/** The state that the address names after its `#`; what it leaves out stays. */
function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const number = (name, other) => (given.has(name) ? Number(given.get(name)) : other);
  choose({
    layer: number("layer", state.layer),
    head: given.get("head") === ALL ? ALL : number("head", state.head),
    rows: given.has("length") ? Math.ceil(Number(given.get("length")) / pattern.block) : state.rows,
    i: number("row", state.i),
    j: number("column", state.j),
  });
}

function fill(select, entries) {
  select.replaceChildren(...entries.map(([value, words]) => new Option(words, value)));
}

/** The heads of the chosen layer: others may have more, or fewer. */
function fillHeads() {
  const count = headsOf(state.layer).length;
  if (get("head").options.length === count + 1) return;
  fill(get("head"), [[ALL, "all: how many keep a block"], ...Array.from({ length: count }, (_, h) => [h, String(h)])]);
}

function start() {
  get("name").textContent = pattern.name;
  get("about").textContent = pattern.about;
  get("facts").textContent = pattern.facts;
  fill(get("layer"), pattern.layer_row.map((_, layer) => [layer, String(layer)]));
  fillHeads();
  get("rows").max = pattern.most_rows;
  get("layer").addEventListener("change", (event) => choose({ layer: Number(event.target.value) }));
  get("head").addEventListener("change", (event) => choose({ head: event.target.value === ALL ? ALL : Number(event.target.value) }));
  get("rows").addEventListener("input", (event) => choose({ rows: Number(event.target.value) }));
  get("text").addEventListener("toggle", draw);
  get("controls").addEventListener("submit", (event) => event.preventDefault());
  get("cells").addEventListener("pointermove", (event) => {
    const box = get("cells").getBoundingClientRect(), scale = state.rows / box.width;
    choose({ i: (event.clientY - box.top) * scale, j: (event.clientX - box.left) * scale }, { redraw: false });
  });
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  get("cells").addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 8 : 1;
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    choose({ i: state.i + move[0] * step, j: state.j + move[1] * step }, { redraw: false });
  });
  get("map-section").hidden = pattern.layer_row.length * widest === 1;
  get("map-note").textContent = pattern.note;
  get("map").addEventListener("pointermove", (event) => name(cellAt(event)));
  get("map").addEventListener("click", (event) => choose(cellAt(event)));
  get("map").addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    choose({ layer: state.layer + move[0], head: (state.head === ALL ? -1 : state.head) + move[1] });
    if (state.head !== ALL) name(state);
  });
  get("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = variable("night") === "1" ? "light" : "dark";
    thumbnails();
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { thumbnails(); draw(); });
  addEventListener("resize", draw);
  addEventListener("hashchange", fromAddress);
  thumbnails();
  fromAddress();
}

/** Small drawings of the classes; pressing one shows its first head. */
function thumbnails() {
  const colours = palette(), rows = Math.min(pattern.rows, 64);
  get("classes").replaceChildren();
  for (const shown of pattern.panels) {
    const button = document.createElement("button"), canvas = document.createElement("canvas");
    const heads = document.createElement("b"), layers = document.createElement("span");
    button.type = "button";
    button.dataset.klass = shown.klass;
    [heads.textContent, layers.textContent, layers.className] = [shown.heads, shown.layers, "quiet"];
    button.append(canvas, heads, layers);
    button.addEventListener("click", () => choose({ layer: shown.layer, head: shown.head }));
    get("classes").append(button);
    const { parts } = pattern.classes[shown.klass];
    paint(canvas, rows, (k) => (k < 0 ? colours.field : colours.part(parts[k])), classGrid(pattern, shown.klass, rows));
  }
}

start();
