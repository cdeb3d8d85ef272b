// Updates from a repository with tuf-js and saves targets: STATE ROOT METADATA_URL TARGETS_URL OUT [TARGET...].
//
// STATE keeps the trusted metadata from run to run; target n goes to the file n in OUT.
"use strict";

const fs = require("fs");
const path = require("path");
const { Updater } = require("tuf-js");

async function main(state, root, metadataBaseUrl, targetBaseUrl, out, ...wanted) {
  fs.mkdirSync(state, { recursive: true });
  const trusted = path.join(state, "root.json");
  if (!fs.existsSync(trusted)) {
    fs.copyFileSync(root, trusted);
  }
  const updater = new Updater({ metadataDir: state, metadataBaseUrl, targetDir: out, targetBaseUrl });
  await updater.refresh();
  for (const [index, name] of wanted.entries()) {
    const info = await updater.getTargetInfo(name);
    if (info === undefined) {
      throw new Error(`${name} is not a target`);
    }
    await updater.downloadTarget(info, path.join(out, String(index)));
  }
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(String(error));
  process.exit(1);
});
