// The audit log verified from docs/audit.md, RFC 6962 and C2SP alone: nothing of it is ours.
//   node log.mjs tree <prefix> <vkey>      the published tree: checkpoint, tiles, entries
//   node log.mjs export <file> <vkey>...   an export: events, tree, chain
import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";

const sha = (...parts) => createHash("sha256").update(Buffer.concat(parts.map((p) => Buffer.from(p)))).digest();
const leafHash = (entry) => sha([0], entry);
const nodeHash = (left, right) => sha([1], left, right);
const fail = (text) => { console.error(text); process.exit(1); };
const same = (a, b) => Buffer.compare(a, b) === 0;

// C2SP signed-note: name+id+base64(type || key); the id is the first four bytes of SHA-256(name || \n || type || key).
function parseKey(vkey) {
  const [name, id, ...rest] = vkey.split("+");
  const data = Buffer.from(rest.join("+"), "base64");
  if (data[0] !== 1 || data.length !== 33) fail("no Ed25519 key");
  if (sha(`${name}\n`, data).subarray(0, 4).toString("hex") !== id) fail("the key id is not the key's");
  const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), data.subarray(1)]);
  return { name, id: Buffer.from(id, "hex"), key: createPublicKey({ key: spki, format: "der", type: "spki" }) };
}

function openCheckpoint(note, { name, id, key }) {
  const at = note.lastIndexOf("\n\n");
  const text = note.slice(0, at + 1);
  const mine = note.slice(at + 2).split("\n").filter((line) => line.startsWith(`— ${name} `))
    .map((line) => Buffer.from(line.split(" ")[2], "base64")).filter((sig) => same(sig.subarray(0, 4), id));
  if (!mine.length || !mine.every((sig) => verify(null, Buffer.from(text), key, sig.subarray(4)))) fail("not signed");
  const [origin, size, root, ...more] = text.split("\n");
  if (origin !== name || more.length !== 1) fail("another log's checkpoint");
  return { size: Number(size), root: Buffer.from(root, "base64") };
}

// RFC 6962, section 2.1, as it is written there.
function mth(hashes, from = 0, to = hashes.length) {
  if (to === from) return sha([]);
  if (to - from === 1) return hashes[from];
  let k = 1;
  while (k * 2 < to - from) k *= 2;
  return nodeHash(mth(hashes, from, from + k), mth(hashes, from + k, to));
}

const tilePath = (n) => {
  const digits = String(n).padStart(Math.ceil(String(n).length / 3) * 3, "0").match(/.{3}/g);
  return digits.map((d, i) => (i < digits.length - 1 ? `x${d}` : d)).join("/");
};

async function tree(prefix, vkey) {
  const get = async (path) => {
    const answer = await fetch(`${prefix}/${path}`);
    if (!answer.ok) fail(`${path}: ${answer.status}`);
    return Buffer.from(await answer.arrayBuffer());
  };
  const { size, root } = openCheckpoint((await get("checkpoint")).toString(), parseKey(vkey));
  const leaves = [], above = [];
  for (let n = 0; n * 256 < size; n++) {
    const width = Math.min(256, size - n * 256);
    const suffix = width === 256 ? "" : `.p/${width}`;
    const bundle = await get(`tile/entries/${tilePath(n)}${suffix}`);
    const tile = await get(`tile/0/${tilePath(n)}${suffix}`);
    const hashes = [];
    for (let at = 0; at < bundle.length; ) {
      const length = bundle.readUInt16BE(at);
      hashes.push(leafHash(bundle.subarray(at + 2, at + 2 + length)));
      at += 2 + length;
    }
    if (!same(Buffer.concat(hashes), tile)) fail("a tile is not that of its entries");
    leaves.push(...hashes);
    if (width === 256) above.push(mth(hashes));
  }
  for (let n = 0; n * 256 < above.length; n++) {
    const part = above.slice(n * 256, n * 256 + 256);
    const tile = await get(`tile/1/${tilePath(n)}${part.length === 256 ? "" : `.p/${part.length}`}`);
    if (!same(Buffer.concat(part), tile)) fail("a tile of level 1 is not that of those below");
  }
  if (leaves.length !== size || !same(mth(leaves), root)) fail("the leaves do not lead to the root");
  console.log(JSON.stringify({ size, root: root.toString("base64") }));
}

const canonical = (value) => Array.isArray(value) ? `[${value.map(canonical).join(",")}]`
  : value && typeof value === "object"
    ? `{${Object.keys(value).sort().map((k) => `${JSON.stringify(k)}:${canonical(value[k])}`).join(",")}}`
    : JSON.stringify(value);

function exported(file, vkeys) {
  const keys = Object.fromEntries(vkeys.map(parseKey).map((key) => [key.name, key]));
  const hex = (text) => Buffer.from(text, "hex");
  let header, checkpoint, parts, size, chain, position, events, covered;
  const add = (hash, width) => {          // a full subtree, by its root; equally large neighbours become one
    parts.push([hash, width]);
    size += width;
    while (parts.length > 1 && parts.at(-1)[1] === parts.at(-2)[1]) {
      const [right, left] = [parts.pop(), parts.pop()];
      parts.push([nodeHash(left[0], right[0]), 2 * left[1]]);
    }
  };
  const root = () => parts.map(([hash]) => hash).reduceRight((right, left) => nodeHash(left, right));
  const sections = [];
  for (const line of readFileSync(file, "utf8").trimEnd().split("\n").map((text) => JSON.parse(text))) {
    if (line.export) {
      header = line;
      checkpoint = openCheckpoint(line.checkpoint, keys[line.origin]);
      [parts, size, position, events, covered] = [[], 0, 0, 0, 0];
      chain = sha(`authpipe-audit-chain/v1\n${line.origin}\n${line.workspace}`);
    } else if (line.gap) {
      let [at, end] = line.gap;
      if (at !== size) fail("a gap in the wrong place");
      for (const each of line.roots) {
        let width = 1;                     // the largest full subtree that begins here and ends in the gap
        while (at % (2 * width) === 0 && at + 2 * width <= end) width *= 2;
        add(hex(each), width);
        at += width;
      }
      if (at !== end) fail("a gap of another length");
    } else if (line.checkpoint) {
      const there = openCheckpoint(line.checkpoint, keys[header.origin]);
      if (there.size !== size || !same(there.root, root())) fail(`the tree of ${size} leaves is another one`);
    } else if (line.entry) {
      const entry = hex(line.entry);
      if (line.leaf !== size) fail("a leaf in the wrong place");
      if (line.record && !same(sha(hex(line.salt), canonical(line.record)), entry)) fail(`leaf ${line.leaf} was changed`);
      add(leafHash(entry), 1);
      if (line.position) {
        if (line.position !== position + 1) fail(`position ${position + 1} is left out`);
        position = line.position;
        chain = sha(chain, leafHash(entry));
        if (line.record) events += 1;
      }
      if (line.head) {
        const [there, hash] = line.head;
        const number = Buffer.alloc(8);
        number.writeBigUInt64BE(BigInt(there));
        const key = sha(header.workspace);
        let node = sha([0], key, number, hex(hash));
        for (let depth = line.path.length - 1; depth >= 0; depth--) {
          const sibling = hex(line.path[depth]);
          node = (key[depth >> 3] >> (7 - (depth & 7))) & 1 ? nodeHash(sibling, node) : nodeHash(node, sibling);
        }
        if (node.toString("hex") !== line.record.event.digest) fail("the statement says another head");
        if (!position) [position, chain] = [there, hex(hash)];
        if (there !== position || hash !== chain.toString("hex")) fail("events are left out");
        covered = there;
      }
    } else if ("end" in line) {
      if (size !== checkpoint.size || (size && !same(root(), checkpoint.root))) fail("another root than the checkpoint's");
      sections.push({ origin: header.origin, size, events, position, covered });
    } else fail("an unknown line");
  }
  console.log(JSON.stringify(sections));
}

const [mode, subject, ...keys] = process.argv.slice(2);
if (mode === "tree") await tree(subject, keys[0]);
else exported(subject, keys);
