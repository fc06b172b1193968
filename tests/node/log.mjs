// The audit log verified from docs/audit-format.md, RFC 6962 and C2SP alone: nothing of it is ours.
//   node log.mjs tree <prefix> <vkey>      the published tree: checkpoint, tiles, entries
//   node log.mjs export <file> <vkey>...   an export: events, tree, chain, what emitters signed
import { createHash, createPublicKey, verify, X509Certificate } from "node:crypto";
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

const hex = (text) => Buffer.from(text, "hex");

// A tree that grows from left to right, as the roots of its full subtrees.
function growing() {
  const parts = [];
  let size = 0;
  const add = (hash, width) => {          // equally large neighbours become one
    parts.push([hash, width]);
    size += width;
    while (parts.length > 1 && parts.at(-1)[1] === parts.at(-2)[1]) {
      const [right, left] = [parts.pop(), parts.pop()];
      parts.push([nodeHash(left[0], right[0]), 2 * left[1]]);
    }
  };
  const skip = (roots, to) => {           // takes the roots of what is not shown
    while (size < to) {
      let width = 1;                      // the largest full subtree that begins here and ends there
      while (size % (2 * width) === 0 && size + 2 * width <= to) width *= 2;
      add(roots.shift() ?? fail("a root is missing"), width);
    }
  };
  const root = () => parts.map(([hash]) => hash).reduceRight((right, left) => nodeHash(left, right));
  return { add, skip, root, size: () => size };
}

function exported(file, vkeys) {
  const keys = Object.fromEntries(vkeys.map(parseKey).map((key) => [key.name, key]));
  const base64 = (text) => Buffer.from(text, "base64");
  let header, checkpoint, grown, chain, position, events, covered, certified, batch;
  // What an emitter signed: four lines, over the tree of its events, those that are not shown by the roots of subtrees.
  const endBatch = () => {
    if (!batch) return;
    const { line, tree, roots } = batch;
    tree.skip(roots, line.batch[2]);
    if (roots.length || !same(tree.root(), hex(line.root))) fail(`the batch at leaf ${line.batch[0]} is not as it was signed`);
    batch = undefined;
  };
  const beginBatch = (line) => {
    endBatch();
    const [, sequence, count] = line.batch;
    const statement = `authpipe-audit-batch/v1\n${line.emitter}\n${sequence} ${count}\n${hex(line.root).toString("base64")}\n`;
    const key = createPublicKey({ key: base64(line.key), format: "der", type: "spki" });
    if (!verify("sha256", Buffer.from(statement), key, base64(line.signature))) fail("a batch is not signed");
    if (!certified.has(`${line.key} ${line.emitter}`)) fail(`no certificate of ${line.emitter}`);
    batch = { line, tree: growing(), roots: line.roots.map(hex) };
  };
  const isEmitters = ({ leaf, record }) => {
    const { line, tree, roots } = batch ?? fail(`nobody signed leaf ${leaf}`);
    const at = leaf - line.batch[0];
    if (record.emitter !== line.emitter || record.sequence !== line.batch[1] + at) fail(`leaf ${leaf} is not of its batch`);
    tree.skip(roots, at);
    tree.add(leafHash(canonical(record.event)), 1);
  };
  const sections = [];
  for (const line of readFileSync(file, "utf8").trimEnd().split("\n").map((text) => JSON.parse(text))) {
    if (line.export) {
      header = line;
      checkpoint = openCheckpoint(line.checkpoint, keys[line.origin]);
      [grown, position, events, covered, certified] = [growing(), 0, 0, 0, new Set()];
      chain = sha(`authpipe-audit-chain/v1\n${line.origin}\n${line.workspace}`);
    } else if (line.gap) {
      const roots = line.roots.map(hex);
      if (line.gap[0] !== grown.size()) fail("a gap in the wrong place");
      grown.skip(roots, line.gap[1]);
      if (roots.length || grown.size() !== line.gap[1]) fail("a gap of another length");
    } else if (line.certificate) {
      const { publicKey, subjectAltName } = new X509Certificate(base64(line.certificate[0]));
      const [, emitter] = subjectAltName.match(/URI:spiffe:\/\/[^/]+\/([a-z0-9/-]+)/);
      certified.add(`${publicKey.export({ type: "spki", format: "der" }).toString("base64")} ${emitter}`);
    } else if (line.batch) {
      beginBatch(line);
    } else if (line.checkpoint) {
      const there = openCheckpoint(line.checkpoint, keys[header.origin]);
      if (there.size !== grown.size() || !same(there.root, grown.root())) fail(`the tree of ${there.size} leaves is another one`);
    } else if (line.entry) {
      const entry = hex(line.entry);
      if (line.leaf !== grown.size()) fail("a leaf in the wrong place");
      if (line.record && !same(sha(hex(line.salt), canonical(line.record)), entry)) fail(`leaf ${line.leaf} was changed`);
      grown.add(leafHash(entry), 1);
      if (line.record) isEmitters(line);
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
      endBatch();
      const size = grown.size();
      if (size !== checkpoint.size || (size && !same(grown.root(), checkpoint.root))) fail("another root than the checkpoint's");
      sections.push({ origin: header.origin, size, events, position, covered });
    } else fail("an unknown line");
  }
  console.log(JSON.stringify(sections));
}

const [mode, subject, ...keys] = process.argv.slice(2);
if (mode === "tree") await tree(subject, keys[0]);
else exported(subject, keys);
