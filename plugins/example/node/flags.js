#!/usr/bin/env node
// A whole plugin in JavaScript: flags that are files in a directory. Beside it lie plugin.proto and node_modules.
"use strict";
const fs = require("fs");
const path = require("path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const pb = grpc.loadPackageDefinition(loader.loadSync(path.join(__dirname, "plugin.proto"), { keepCase: true, enums: String, oneofs: true })).runbook.plugin.v1;

const param = { name: "name", type: "string", doc: "name of the flag", required: true };
const manifest = {
  name: "flags", version: "0.1.0", doc: "Flags that are files.",
  config: [{ name: "dir", type: "string", doc: "where the flags are", required: true }],
  functions: [
    { name: "is_set", kind: "KIND_QUERY", doc: "Whether a flag is set.", params: [param], positional: 1, returns: "bool" },
    { name: "set", kind: "KIND_ACTION", doc: "Set a flag.", params: [param], positional: 1, returns: "bool" },
  ],
};
let settings = null;

// What a person should read travels in an answer: a status of gRPC means that the plugin is broken.
const diagnostics = (why) => [{ severity: "SEVERITY_ERROR", message: String(why.message || why) }];
const answering = (answer) => (call, done) => {
  try {
    done(null, answer(call.request));
  } catch (why) {
    done(null, { diagnostics: diagnostics(why) });
  }
};

// The entries of a Dict that must have exactly these parameters, all of them strings.
function strings(given, params) {
  const out = {};
  for (const e of (given && given.entries) || []) {
    const name = e.key.string;
    if (!params.some((p) => p.name === name)) throw new Error(`there is no ${name}`);
    if (e.value.kind !== "string") throw new Error(`${name} is not a string`);
    out[name] = e.value.string;
  }
  for (const p of params) if (!(p.name in out)) throw new Error(`${p.name} is missing`);
  return out;
}

// The file of the flag that a request is about.
function file(request, kind) {
  if (!settings) throw new Error("not configured");
  const f = manifest.functions.find((f) => f.name === request.function && f.kind === kind);
  if (!f) throw new Error(`there is no such function as ${request.function}`);
  return path.join(settings.dir, path.basename(strings(request.args, f.params).name));
}

function execute(stream) {
  let request = null;
  const finish = (outcome, message) => {
    stream.write({ finished: { outcome, message: String(message), value: { bool: outcome !== "OUTCOME_NOT_STARTED" } } });
    stream.end();
  };
  stream.on("data", (input) => {
    if (input.request) {
      request = input.request;
      try {
        file(request, "KIND_ACTION");
      } catch (why) {
        return finish("OUTCOME_NOT_STARTED", why.message);
      }
      return stream.write({ started: {} }); // the engine records it now, and only then says go
    }
    if (!input.proceed || !input.proceed.go) {
      stream.write({ declined: {} });
      return stream.end();
    }
    stream.write({ acting: {} });
    try {
      fs.writeFileSync(file(request, "KIND_ACTION"), request.key, { flag: "wx" });
    } catch (why) {
      return why.code === "EEXIST" ? finish("OUTCOME_NO_CHANGE", "it was set") : finish("OUTCOME_FAILED", why.message);
    }
    finish("OUTCOME_SUCCEEDED", "");
  });
  stream.on("error", () => {}); // the engine ended the call
}

if (process.env.RUNBOOK_PLUGIN !== "c1f0a9be-runbook-plugin") {
  console.error("flags: this is a plugin of runbook: name it in project.star, and runbook starts it");
  process.exit(1);
}
const size = 16 << 20;
const server = new grpc.Server({ "grpc.max_receive_message_length": size, "grpc.max_send_message_length": size });
server.addService(pb.Plugin.service, {
  Describe: answering(() => ({ manifest })),
  Configure: answering((r) => ((settings = strings(r.config, manifest.config)), {})),
  Query: answering((r) => ({ value: { bool: fs.existsSync(file(r, "KIND_QUERY")) } })),
  Plan: answering(() => { throw new Error("there are no plans"); }),
  Probe: answering(() => { throw new Error("there are no probes"); }),
  Execute: execute,
});
const raw = (bytes) => bytes;
server.addService({ Check: { path: "/grpc.health.v1.Health/Check", requestStream: false, responseStream: false,
  requestDeserialize: raw, requestSerialize: raw, responseSerialize: raw, responseDeserialize: raw } },
{ Check: (call, done) => done(null, Buffer.from([8, 1])) }); // SERVING

const socket = path.join(process.env.PLUGIN_UNIX_SOCKET_DIR, "flags");
server.bindAsync("unix:" + socket, grpc.ServerCredentials.createInsecure(), (err) => {
  if (err) {
    console.error("flags: " + err.message);
    process.exit(1);
  }
  console.log(`1|1|unix|${socket}|grpc`);
});
const end = () => {
  server.tryShutdown(() => process.exit(0)); // what is under way may end
  setTimeout(() => process.exit(0), 1500);
};
process.on("SIGTERM", end);
if (process.env.RUNBOOK_PLUGIN_LIFELINE === "1") process.stdin.on("end", end).resume(); // the end of standard input is the end of the engine
