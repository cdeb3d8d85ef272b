// Writes a repository with the metadata model of tuf-js:
// FOLDER ed25519|ecdsa|ecdsa-sha2-nistp256|rsa paths|hash-prefixes|succinct consistent|plain.
//
// The files below FOLDER/incoming become targets. Run again, it publishes the next version with the same keys.
// With `paths`, `demo/*` belongs to the role `projects` (two signatures of two) and `deps/*` to `projects/deps` below it.
// With `hash-prefixes` and `succinct` every target belongs to one of sixteen bins.
"use strict";

const crypto = require("crypto");
const fs = require("fs");
const path = require("path");
const models = require("@tufjs/models");

// Classes that the package has and does not export.
const inner = (name) => require(path.join(path.dirname(require.resolve("@tufjs/models")), `${name}.js`));
const { Delegations } = inner("delegations");
const { DelegatedRole, Role, SuccinctRoles } = inner("role");

const TOP = ["root", "timestamp", "snapshot", "targets"];
const SPEC_VERSION = "1.0.31";
const [folder, kind, shape, layout] = process.argv.slice(2);
const consistent = layout === "consistent";

function main() {
  for (const name of ["metadata", "targets", "keys"]) {
    fs.mkdirSync(path.join(folder, name), { recursive: true });
  }
  const version = nextVersion();
  if (version === 1) {
    writeRoot();
  }
  const roles = delegated();
  const names = filesBelow(path.join(folder, "incoming"), "");
  const files = new Map([["targets", {}], ...roles.map((role) => [role.name, {}])]);
  for (const name of names) {
    const role = roles.findLast((role) => role.covers(name));
    files.get(role === undefined ? "targets" : role.name)[name] = store(name);
  }
  const meta = {};
  const write = (name, more, signers) => {
    const targets = new models.Targets({ ...header(version, 90), targets: files.get(name), ...more });
    meta[`${name}.json`] = publish(name, version, sign(targets, signers));
  };
  for (const role of roles) {
    write(role.name, delegationsBy(role.name, roles), keysOf(role.name, role.threshold));
  }
  write("targets", delegationsBy("targets", roles), keysOf("targets", 1));
  const snapshot = new models.Snapshot({ ...header(version, 7), meta });
  const snapshotMeta = publish("snapshot", version, sign(snapshot, keysOf("snapshot", 1)));
  const timestamp = new models.Timestamp({ ...header(version, 1), snapshotMeta });
  fs.writeFileSync(inMetadata("timestamp.json"), sign(timestamp, keysOf("timestamp", 1)));
}

// The roles in the order of the documents, each with who delegates and which targets it lists.
function delegated() {
  if (shape === "paths") {
    const covers = (prefix) => (name) => name.startsWith(prefix);
    return [
      { name: "projects", by: "targets", threshold: 2, paths: ["demo/*", "deps/*"], covers: covers("demo/") },
      { name: "projects/deps", by: "projects", threshold: 1, paths: ["deps/*"], covers: covers("deps/") },
    ];
  }
  const digit = (name) => crypto.createHash("sha256").update(name).digest("hex")[0];
  return [..."0123456789abcdef"].map((each) => ({
    name: `bin-${each}`,
    by: "targets",
    threshold: 1,
    pathHashPrefixes: [each],
    covers: (name) => digit(name) === each,
  }));
}

function delegationsBy(name, roles) {
  const own = roles.filter((role) => role.by === name);
  if (own.length === 0) {
    return {};
  }
  const keys = {};
  const keyIDs = (role, count) =>
    keysOf(role, count).map((signer) => {
      keys[signer.key.keyID] = signer.key;
      return signer.key.keyID;
    });
  if (shape === "succinct") {
    const bins = { keyIDs: keyIDs("bin", 1), threshold: 1, bitLength: 4, namePrefix: "bin" };
    return { delegations: new Delegations({ keys, succinctRoles: new SuccinctRoles(bins) }) };
  }
  const named = {};
  for (const { name, threshold, paths, pathHashPrefixes } of own) {
    const terminating = false;
    const role = { name, keyIDs: keyIDs(name, threshold), threshold, terminating, paths, pathHashPrefixes };
    named[name] = new DelegatedRole(role);
  }
  return { delegations: new Delegations({ keys, roles: named }) };
}

function writeRoot() {
  const keys = {};
  const roles = {};
  for (const role of TOP) {
    const [{ key }] = keysOf(role, 1);
    keys[key.keyID] = key;
    roles[role] = new Role({ keyIDs: [key.keyID], threshold: 1 });
  }
  const root = new models.Root({ ...header(1, 365), keys, roles, consistentSnapshot: consistent });
  const bytes = sign(root, keysOf("root", 1));
  fs.writeFileSync(inMetadata("1.root.json"), bytes);
  fs.writeFileSync(path.join(folder, "root.json"), bytes);
}

function header(version, days) {
  const expires = new Date(Date.now() + days * 86_400_000).toISOString().replace(/\.\d+Z$/, "Z");
  return { version, specVersion: SPEC_VERSION, expires };
}

function sign(signed, signers) {
  const metadata = new models.Metadata(signed);
  for (const { key, sign } of signers) {
    metadata.sign((data) => new models.Signature({ keyID: key.keyID, sig: sign(data).toString("hex") }));
  }
  return Buffer.from(JSON.stringify(metadata.toJSON(), null, 1));
}

function publish(role, version, bytes) {
  const name = `${encodeURIComponent(role)}.json`;
  fs.writeFileSync(inMetadata(consistent ? `${version}.${name}` : name), bytes);
  return new models.MetaFile({ version, length: bytes.length, hashes: { sha256: digest(bytes) } });
}

function store(name) {
  const bytes = fs.readFileSync(path.join(folder, "incoming", name));
  const sha256 = digest(bytes);
  const place = path.join(folder, "targets", path.dirname(name));
  fs.mkdirSync(place, { recursive: true });
  const last = path.basename(name);
  fs.writeFileSync(path.join(place, consistent ? `${sha256}.${last}` : last), bytes);
  return new models.TargetFile({ length: bytes.length, path: name, hashes: { sha256 } });
}

// So many signers of a role, made at first use. All bins of succinct roles have one key.
function keysOf(role, count) {
  const owner = shape === "succinct" && role.startsWith("bin") ? "bin" : role;
  return Array.from({ length: count }, (_, number) => {
    const file = path.join(folder, "keys", `${encodeURIComponent(owner)}-${number}`);
    if (!fs.existsSync(file)) {
      fs.writeFileSync(file, generate().export({ type: "pkcs8", format: "pem" }));
    }
    return signer(crypto.createPrivateKey(fs.readFileSync(file)));
  });
}

function generate() {
  switch (kind) {
    case "ed25519":
      return crypto.generateKeyPairSync("ed25519").privateKey;
    case "ecdsa":
    case "ecdsa-sha2-nistp256":
      return crypto.generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
    case "rsa":
      return crypto.generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
    default:
      throw new Error(`no kind of key: ${kind}`);
  }
}

function signer(privateKey) {
  const publicKey = crypto.createPublicKey(privateKey);
  const pem = publicKey.export({ type: "spki", format: "pem" });
  const raw = publicKey.export({ type: "spki", format: "der" });
  const pss = { padding: crypto.constants.RSA_PKCS1_PSS_PADDING, saltLength: crypto.constants.RSA_PSS_SALTLEN_DIGEST };
  const [scheme, value, sign] = {
    // The last 32 bytes of the DER form are the key.
    ed25519: ["ed25519", raw.subarray(-32).toString("hex"), (data) => crypto.sign(null, data, privateKey)],
    ecdsa: ["ecdsa-sha2-nistp256", pem, (data) => crypto.sign("sha256", data, privateKey)],
    // The keytype of old with the last 65 bytes of the DER form, an uncompressed point.
    "ecdsa-sha2-nistp256": [
      "ecdsa-sha2-nistp256",
      raw.subarray(-65).toString("hex"),
      (data) => crypto.sign("sha256", data, privateKey),
    ],
    rsa: ["rsassa-pss-sha256", pem, (data) => crypto.sign("sha256", data, { key: privateKey, ...pss })],
  }[kind];
  const key = new models.Key({ keyID: digest(Buffer.from(value)), keyType: kind, scheme, keyVal: { public: value } });
  return { key, sign };
}

// The number of publications, this one included.
function nextVersion() {
  const record = path.join(folder, "publications");
  const past = fs.existsSync(record) ? Number(fs.readFileSync(record, "utf8")) : 0;
  fs.writeFileSync(record, String(past + 1));
  return past + 1;
}

function filesBelow(place, prefix) {
  return fs.readdirSync(place, { withFileTypes: true }).flatMap((entry) => {
    const name = prefix + entry.name;
    return entry.isDirectory() ? filesBelow(path.join(place, entry.name), `${name}/`) : [name];
  });
}

function inMetadata(name) {
  return path.join(folder, "metadata", name);
}

function digest(bytes) {
  return crypto.createHash("sha256").update(bytes).digest("hex");
}

main();
