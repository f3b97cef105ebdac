// Runs the examples of README.md as they stand there, between two daemons that know each other as alice and
// bob, and compares what they print with what README.md says. Sockets: $AXON_A (alice), $AXON_B (bob).

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { Client } from "../dist/index.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const build = `${root}build/readme`;
const sockets = { alice: process.env.AXON_A, bob: process.env.AXON_B };
/** Longest that an example may take. */
const RUN_MS = 30_000;

const readme = readFileSync(`${root}README.md`, "utf8");
const form = /<!-- run: (\w+)(, in the background)? -->\n\n```ts\n(.*?)```\n(?:\n```text\n(.*?)```\n)?/gs;
const examples = [...readme.matchAll(form)].map(([, on, background, code, prints], at) => {
  return { name: `example${at + 1}`, on, background: background !== undefined, code, prints: prints ?? "" };
});
assert.equal(examples.length, readme.match(/^```ts$/gm).length, "each example says where it is run");
assert.ok(examples.length > 0);

// Inside the package, so that it finds itself by its name, and checked as strictly as itself.
rmSync(build, { recursive: true, force: true });
mkdirSync(build, { recursive: true });
for (const { name, code } of examples) writeFileSync(`${build}/${name}.ts`, code);
const { compilerOptions } = JSON.parse(readFileSync(`${root}tsconfig.json`, "utf8"));
const own = { ...compilerOptions, rootDir: ".", outDir: "out", declaration: false };
writeFileSync(`${build}/tsconfig.json`, JSON.stringify({ compilerOptions: own, include: ["*.ts"] }));
const compiler = `${root}node_modules/typescript/bin/tsc`;
execFileSync(process.execPath, [compiler, "-p", build], { stdio: "inherit" });

function start({ name, on, prints }) {
  const env = { ...process.env, AXON_SOCKET: sockets[on] };
  const stdio = ["ignore", "pipe", "inherit"];
  const child = spawn(process.execPath, [`${build}/out/${name}.js`], { env, stdio });
  let printed = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (printed += text));
  const over = once(child, "close").then(([code]) => ({ code, printed }));
  return { name, child, over, prints };
}

async function ended({ name, over, prints, child }) {
  const late = setTimeout(() => child.kill("SIGKILL"), RUN_MS);
  const { code, printed } = await over;
  clearTimeout(late);
  assert.equal(code, 0, `${name} ended with ${code}`);
  assert.equal(printed, prints, name);
}

const background = [];
let agents = 0;
try {
  for (const example of examples) {
    const running = start(example);
    if (!example.background) {
      await ended(running);
      continue;
    }
    background.push(running);
    if (!example.code.includes("serve(")) continue;
    agents += 1;
    const client = await Client.connect({ socket: sockets[example.on] });
    // Nothing tells that somebody else has attached: look until it is so.
    while ((await client.status()).answerers < agents) {
      assert.equal(running.child.exitCode, null, `${example.name} has ended`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    client.close();
  }
  for (const running of background) {
    // What prints nothing goes on until it is told to stop.
    if (running.prints === "") running.child.kill("SIGTERM");
    await ended(running);
  }
} finally {
  for (const { child } of background) child.kill("SIGKILL");
}
process.stdout.write(`${examples.length} examples ran\n`);
