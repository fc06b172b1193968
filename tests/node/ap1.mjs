// AP1 a second time, written from docs/envelope.md alone, on another language's cryptography: what the two agree on is
// the format and not a habit of one of them. Reads a JSON request on standard input, writes a JSON answer.
import { createCipheriv, createDecipheriv, hkdfSync } from "node:crypto";
import { readFileSync } from "node:fs";

const HEADER = 72;

function context(fields) {
  const version = Buffer.alloc(8);
  version.writeBigUInt64BE(BigInt(fields.version));
  const values = [
    Buffer.from(fields.deployment), Buffer.from(fields.region), Buffer.from(fields.key_domain),
    Buffer.from(fields.workspace), Buffer.from(fields.connection), Buffer.from([fields.record_class]),
    version, Buffer.from(fields.provider), Buffer.from(fields.hosts, "hex"),
  ];
  return Buffer.concat(values.flatMap((value, index) => {
    const head = Buffer.alloc(5);
    head.writeUInt8(index + 1);
    head.writeUInt32BE(value.length, 1);
    return [head, value];
  }));
}

function derive(ck, salt, recordClass) {
  const info = Buffer.concat([Buffer.from("authpipe AP1 record"), Buffer.from([1, 1, recordClass])]);
  return Buffer.from(hkdfSync("sha512", ck, salt, info, 76));
}

function seal({ ck, salt, key_version, fields, plaintext }) {
  const material = derive(Buffer.from(ck, "hex"), Buffer.from(salt, "hex"), fields.record_class);
  const version = Buffer.alloc(4);
  version.writeUInt32BE(key_version);
  const header = Buffer.concat([Buffer.from("AP\x01\x01", "latin1"), version, Buffer.from(salt, "hex"), material.subarray(44)]);
  const text = Buffer.concat([Buffer.from(plaintext, "hex"), Buffer.from([0x80])]);
  const padded = Buffer.concat([text, Buffer.alloc((64 - (text.length % 64)) % 64)]);
  const cipher = createCipheriv("aes-256-gcm", material.subarray(0, 32), material.subarray(32, 44));
  cipher.setAAD(Buffer.concat([header, context(fields)]));
  return Buffer.concat([header, cipher.update(padded), cipher.final(), cipher.getAuthTag()]).toString("hex");
}

function open({ ck, fields, record }) {
  const bytes = Buffer.from(record, "hex");
  const header = bytes.subarray(0, HEADER);
  const material = derive(Buffer.from(ck, "hex"), header.subarray(8, 40), fields.record_class);
  if (!material.subarray(44).equals(header.subarray(40))) throw new Error("another key");
  const decipher = createDecipheriv("aes-256-gcm", material.subarray(0, 32), material.subarray(32, 44));
  decipher.setAAD(Buffer.concat([header, context(fields)]));
  decipher.setAuthTag(bytes.subarray(-16));
  const padded = Buffer.concat([decipher.update(bytes.subarray(HEADER, -16)), decipher.final()]);
  return padded.subarray(0, padded.lastIndexOf(0x80)).toString("hex");
}

const request = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(request.map((each) => (each.act === "seal" ? seal(each) : open(each)))));
