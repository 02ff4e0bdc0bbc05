// Why a block is kept, from a pattern's data alone: the rules of the layouts once more, for the page.
// A part is a term (bounds and a residue), a chunk, a random draw, a mask, or a window or sink counted in tokens.
"use strict";

const mod = (x, n) => ((x % n) + n) % n;
const within = (x, low, high) => (low === null || low <= x) && (high === null || x < high);

/** Whether a part keeps any token pair of row i, column j (causality is the caller's). */
function holds(part, i, j, block) {
  switch (part.type) {
    case "term": {
      const x = part.anchor === "j" ? j : i - j;
      return within(i - j, part.d_from, part.d_to) && within(j, part.j_from, part.j_to)
        && within(i, part.i_from, part.i_to) && mod(x - part.offset, part.every) < part.width;
    }
    case "chunk": return Math.floor(i / part.blocks) === Math.floor(j / part.blocks);
    case "random": return drawn(part, i).has(j);
    case "mask": return i < part.rows && j < part.columns && maskBit(part, i * part.columns + j);
    case "window":
      return -Math.ceil((part.after - 1) / block) <= i - j && i - j <= Math.ceil((part.before - 1) / block);
    case "band":
      return Math.floor(part.from / block) <= i - j && (part.to === null || i - j <= Math.ceil((part.to - 1) / block));
    case "sink": return j * block < part.count;
  }
  throw new Error(`a part of unknown type: ${part.type}`);
}

/** The number of the first part that keeps block (i, j), or -1. */
function firstPart(pattern, klass, i, j) {
  if (pattern.causal && j > i) return -1;
  const parts = pattern.classes[klass].parts;
  for (let k = 0; k < parts.length; k++) if (holds(parts[k], i, j, pattern.block)) return k;
  return -1;
}

/** The first part of every block of the first `rows` rows and columns: [row * rows + column]. */
function classGrid(pattern, klass, rows) {
  const cells = new Int16Array(rows * rows).fill(-1);
  for (let i = 0; i < rows; i++) {
    const end = pattern.causal ? i + 1 : rows;
    for (let j = 0; j < end; j++) cells[i * rows + j] = firstPart(pattern, klass, i, j);
  }
  return cells;
}

/** The columns that row i draws: Floyd's sampling over 64-bit hashes of (seed, i, k). */
function drawn(part, i) {
  part.rowsDrawn ??= new Map();
  let chosen = part.rowsDrawn.get(i);
  if (chosen) return chosen;
  chosen = new Set();
  for (let k = 0; k < part.blocks; k++) {
    const top = i + 1 - part.blocks + k;
    if (i < part.blocks) { if (k <= i) chosen.add(k); continue; }
    const x = Number((mix(part.seed, i, k) >> 1n) % BigInt(top + 1));
    chosen.add(chosen.has(x) ? top : x);
  }
  part.rowsDrawn.set(i, chosen);
  return chosen;
}

function mix(seed, i, k) {
  const wrap = (z) => BigInt.asUintN(64, z);
  let z = wrap(BigInt(seed) * 0x9E3779B97F4A7C15n + BigInt(i) * 0xBF58476D1CE4E5B9n + BigInt(k) * 0x94D049BB133111EBn);
  z = wrap((z ^ (z >> 30n)) * 0xBF58476D1CE4E5B9n);
  z = wrap((z ^ (z >> 27n)) * 0x94D049BB133111EBn);
  return z ^ (z >> 31n);
}

function maskBit(part, number) {
  part.bytes ??= Uint8Array.from(atob(part.bits), (c) => c.charCodeAt(0));
  return (part.bytes[number >> 3] >> (7 - (number & 7))) & 1;
}

/** How many token pairs of block (i, j) are kept. */
function keptPairs(pattern, klass, i, j) {
  const { block, causal } = pattern;
  const parts = pattern.classes[klass].parts.filter((part) => holds(part, i, j, block));
  const window = parts.find((part) => part.type === "window"), sink = parts.find((part) => part.type === "sink");
  const whole = parts.some((part) => part.whole), bands = parts.filter((part) => part.type === "band");
  let count = 0;
  for (let t = i * block; t < (i + 1) * block; t++) {
    for (let u = j * block; u < (j + 1) * block && !(causal && u > t); u++) {
      count += whole || bands.some((band) => within(t - u, band.from, band.to)) || (sink && u < sink.count) || (window && -window.after < t - u && t - u < window.before) ? 1 : 0;
    }
  }
  return count;
}

/** A row's kept columns as text, runs of three or more as ranges: "3 11 112-127". */
function ranges(columns) {
  const texts = [];
  for (let k = 0; k < columns.length;) {
    let end = k;
    while (columns[end + 1] === columns[end] + 1) end++;
    if (end - k >= 2) texts.push(`${columns[k]}-${columns[end]}`);
    else for (let n = k; n <= end; n++) texts.push(String(columns[n]));
    k = end + 1;
  }
  return texts.join(" ");
}

/** Key tokens that a KV head with these classes must hold after each row: those that its last token or any later one
 *  may attend. */
function liveTokens(pattern, classes, rows) {
  const parts = classes.flatMap((klass) => pattern.classes[klass].parts), { block } = pattern;
  const before = Math.max(0, ...parts.map((part) => part.before ?? (part.type === "band" ? part.to ?? Infinity : 0)));
  const sink = Math.max(0, ...parts.filter((part) => part.type === "sink").map((part) => part.count));
  const last = Array.from({ length: rows }, (_, j) => Math.max(-1, ...parts.map((part) => lastRow(part, j))));
  const clip = (x) => Math.min(Math.max(x, 0), block);
  return Array.from({ length: rows }, (_, i) => {
    let held = 0;
    for (let j = 0; j <= i; j++) {
      const inPart = clip(sink - j * block) + clip((j + 1) * block - Math.max((i + 1) * block - before, 0));
      held += last[j] >= i ? block : Math.min(inPart, block);
    }
    return held;
  });
}

/** The last row in which a part keeps column j whole: Infinity when rows without end do, -1 when none does. */
function lastRow(part, j) {
  if (part.type === "random") return Infinity;
  if (part.type === "chunk") return (Math.floor(j / part.blocks) + 1) * part.blocks - 1;
  if (part.type === "mask") {
    for (let i = part.rows - 1; i >= j; i--) if (j < part.columns && maskBit(part, i * part.columns + j)) return i;
    return -1;
  }
  if (part.type !== "term" || !within(j, part.j_from, part.j_to)) return -1;
  const first = Math.max(j, part.i_from ?? 0, j + (part.d_from ?? 0));
  const end = Math.min(part.i_to ?? Infinity, part.d_to === null ? Infinity : j + part.d_to);
  if (part.anchor === "j" || end === Infinity) {
    const reads = part.anchor !== "j" || mod(j - part.offset, part.every) < part.width;
    return reads && end - 1 >= first ? end - 1 : -1;
  }
  for (let i = end - 1; i >= first; i--) if (mod(i - j - part.offset, part.every) < part.width) return i;
  return -1;
}
