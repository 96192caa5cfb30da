#!/usr/bin/python3
"""A whole plugin in Python: flags that are files in a directory. Beside it lies plugin_pb2.py, which protoc makes of plugin.proto."""
import os
import signal
import sys
import threading
from concurrent import futures

import grpc

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import plugin_pb2 as pb  # noqa: E402

settings = {}
param = pb.Param(name="name", type="string", doc="name of the flag", required=True)
manifest = pb.Manifest(
    name="flags", version="0.1.0", doc="Flags that are files.",
    config=[pb.Param(name="dir", type="string", doc="where the flags are", required=True)],
    functions=[
        pb.Function(name="is_set", kind=pb.KIND_QUERY, doc="Whether a flag is set.", params=[param], positional=1, returns="bool"),
        pb.Function(name="set", kind=pb.KIND_ACTION, doc="Set a flag.", params=[param], positional=1, returns="bool"),
    ])


class Refused(Exception):
    """What a person should read. It travels in an answer: a status of gRPC means that the plugin is broken."""


def diagnostics(why):
    return [pb.Diagnostic(severity=pb.SEVERITY_ERROR, message=str(why))]


def strings(given, params):
    """The entries of a Dict that must have exactly these parameters, all of them strings."""
    out = {}
    for e in given.entries:
        if e.key.string not in [p.name for p in params]:
            raise Refused(f"there is no {e.key.string}")
        if e.value.WhichOneof("kind") != "string":
            raise Refused(f"{e.key.string} is not a string")
        out[e.key.string] = e.value.string
    for p in params:
        if p.name not in out:
            raise Refused(f"{p.name} is missing")
    return out


def path(request, kind):
    """The file of the flag that a request is about."""
    if not settings:
        raise Refused("not configured")
    for f in manifest.functions:
        if f.name == request.function and f.kind == kind:
            return os.path.join(settings["dir"], os.path.basename(strings(request.args, f.params)["name"]))
    raise Refused(f"there is no such function as {request.function}")


def describe(request, context):
    return pb.DescribeResponse(manifest=manifest)


def configure(request, context):
    try:
        settings.update(strings(request.config, manifest.config))
    except Refused as why:
        return pb.ConfigureResponse(diagnostics=diagnostics(why))
    return pb.ConfigureResponse()


def query(request, context):
    try:
        return pb.QueryResponse(value=pb.Value(bool=os.path.exists(path(request, pb.KIND_QUERY))))
    except Refused as why:
        return pb.QueryResponse(diagnostics=diagnostics(why))


def execute(inputs, context):
    request = next(inputs).request
    try:
        file = path(request, pb.KIND_ACTION)
    except Refused as why:
        yield finished(pb.OUTCOME_NOT_STARTED, why)
        return
    yield pb.ExecuteEvent(started=pb.Started())  # the engine records it now, and only then says go
    answer = next(inputs, pb.ExecuteInput())
    if not answer.proceed.go:
        yield pb.ExecuteEvent(declined=pb.Declined())
        return
    yield pb.ExecuteEvent(acting=pb.Acting())
    if os.path.exists(file):
        yield finished(pb.OUTCOME_NO_CHANGE, "it was set")
        return
    try:
        with open(file, "w") as f:
            f.write(request.key)
    except OSError as why:
        yield finished(pb.OUTCOME_FAILED, why)
        return
    yield finished(pb.OUTCOME_SUCCEEDED, "")


def finished(outcome, message):
    return pb.ExecuteEvent(finished=pb.Finished(outcome=outcome, message=str(message), value=pb.Value(bool=outcome != pb.OUTCOME_NOT_STARTED)))


def main():
    if os.environ.get("RUNBOOK_PLUGIN") != "c1f0a9be-runbook-plugin":
        sys.exit("flags: this is a plugin of runbook: name it in project.star, and runbook starts it")
    size = 16 << 20
    server = grpc.server(futures.ThreadPoolExecutor(), options=[
        ("grpc.max_receive_message_length", size), ("grpc.max_send_message_length", size)])
    unary = lambda f, request, response: grpc.unary_unary_rpc_method_handler(f, request.FromString, response.SerializeToString)  # noqa: E731
    server.add_generic_rpc_handlers([
        grpc.method_handlers_generic_handler("runbook.plugin.v1.Plugin", {
            "Describe": unary(describe, pb.DescribeRequest, pb.DescribeResponse),
            "Configure": unary(configure, pb.ConfigureRequest, pb.ConfigureResponse),
            "Query": unary(query, pb.QueryRequest, pb.QueryResponse),
            "Plan": unary(lambda r, c: pb.PlanResponse(diagnostics=diagnostics("there are no plans")), pb.PlanRequest, pb.PlanResponse),
            "Probe": unary(lambda r, c: pb.ProbeResponse(diagnostics=diagnostics("there are no probes")), pb.ProbeRequest, pb.ProbeResponse),
            "Execute": grpc.stream_stream_rpc_method_handler(execute, pb.ExecuteInput.FromString, pb.ExecuteEvent.SerializeToString),
        }),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
            "Check": grpc.unary_unary_rpc_method_handler(lambda r, c: b"\x08\x01"),  # SERVING
        }),
    ])
    socket = os.path.join(os.environ["PLUGIN_UNIX_SOCKET_DIR"], "flags")
    server.add_insecure_port("unix:" + socket)
    server.start()
    # A pipe and no Event: what is written by the signal itself is not lost in the moment before this thread waits.
    end, ended = os.pipe()
    os.set_blocking(ended, False)
    signal.set_wakeup_fd(ended)
    signal.signal(signal.SIGTERM, lambda *_: None)
    if os.environ.get("RUNBOOK_PLUGIN_LIFELINE") == "1":  # the end of standard input is the end of the engine
        threading.Thread(target=lambda: (sys.stdin.buffer.read(), os.write(ended, b".")), daemon=True).start()
    print(f"1|1|unix|{socket}|grpc", flush=True)
    os.read(end, 1)
    server.stop(grace=1.5).wait()  # what is under way may end
    os._exit(0)


main()
