"""Makes requests meet and lets some of them in.

A document's name is the path's, a few names come again and again, and many a document is a good one, or one with one field
of what was made up. What is made to be wrong stays as it is. Each operation and what it was answered goes into a file, from
which the test tells whether each was let through.
"""

import json
import os
import time
import urllib.error
import urllib.request

import schemathesis

NAMES = ("web", "api", "db")
BACKENDS = [{"address": "10.0.0.1", "port": 8080}, {"address": "10.0.0.2", "port": 8080}]
# The number in an address or a prefix is that of its name.
GOOD = {
    "vips": {"address": "203.0.113.{}", "port": 80, "backends": BACKENDS},
    "pools": {"addresses": ["198.51.100.0/28"]},
    "health-checks": {"kind": "tcp"},
    "nodes": {"drain": False},
    "static-routes": {"prefix": "198.18.{}.0/24", "kind": "blackhole"},
    "addresses": {"interface": "eth9", "address": "198.19.{}.1/24"},
    "bgp/peers": {"address": "198.51.100.{}", "asn": 65001, "passive": True},
    "bgp/peer-groups": {"asn": 65001, "hold_time_secs": 9},
    "bgp/policies": {"statements": [{"action": "accept"}]},
    "bgp/sets": {"prefixes": ["10.0.0.0/8"]},
}


# What questions are about: with it, nothing else is asked.
ASKED = {"bgp/explain": {"prefix": "10.244.1.0/26"}, "fib/lookup": {"destination": "10.244.1.2"}}
KINDS = {"events": "vip-created,vip-deleted", "flows/events": "flow-new,flow-end"}
ANSWERS = os.environ.get("LBD_ANSWERS")


def is_wrong(case):
    """Whether it was made to be refused."""
    meta = getattr(case, "meta", None)
    return meta is not None and meta.generation.mode.is_negative


@schemathesis.hook
def filter_case(context, case):
    # The status of a request is left out, whatever is in it, and a field that is null is one that is left out: no mistakes.
    return not (is_wrong(case) and isinstance(case.body, dict) and leaves_out(case.body))


def leaves_out(value):
    if isinstance(value, dict):
        return any(name == "status" or field is None or leaves_out(field) for name, field in value.items())
    return isinstance(value, list) and any(leaves_out(member) for member in value)


@schemathesis.hook
def before_call(context, case, kwargs):
    """What an operation is about is there; strange names are still nobody's."""
    parts = case.path.split("/")[3:]
    if is_wrong(case):
        return
    name = (case.path_parameters or {}).get("name")
    kind = "/".join(parts[: parts.index("{name}")]) if "{name}" in parts else None
    if parts == ["config", "confirm"]:
        vip = good("vips", "web", None)
        vip["metadata"]["labels"] = {"try": str(time.monotonic_ns())}
        ask("POST", "config?confirmWithin=60", {"vips": [vip]})
    elif kind == "tokens" and name in NAMES:
        ask("POST", "tokens", {"metadata": {"name": name}, "spec": {"role": "viewer"}})
    elif kind in GOOD and name in (*NAMES, "local") and (case.method != "PUT" or "backends" in parts):
        ask("PUT", f"{kind}/{name}", good(kind, name, None))


def ask(method, path, body):
    asked = urllib.request.Request(
        os.environ["LBD_SERVER"] + "/api/v1/" + path,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method=method,
    )
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            answer.read()
    except urllib.error.HTTPError:
        pass  # The operation itself shows what is in the way.


@schemathesis.hook
def after_call(context, case, response):
    if ANSWERS:
        with open(ANSWERS, "a", encoding="utf-8") as answers:
            print(case.method, case.path, response.status_code, file=answers)


@schemathesis.hook
def map_case(context, case):
    if is_wrong(case):
        return case
    name = case.path_parameters.get("name") if case.path_parameters else None
    parts = case.path.split("/")
    if len(parts) < 4:
        return case
    of = "/".join(parts[3:-1])
    if isinstance(name, str):
        # Every fourth name stays what it is, however strange.
        place = mixed(name) % (len(NAMES) + 1)
        if place < len(NAMES):
            name = "local" if parts[3] == "nodes" else NAMES[place]
            case.path_parameters["name"] = name
    if "backend" in (case.path_parameters or {}) and mixed(name) % 4:
        backend = BACKENDS[mixed(str(case.body)) % len(BACKENDS)]
        case.path_parameters["backend"] = "{address}:{port}".format(**backend)
        if case.method == "PUT":
            case.body = {"spec": {**backend, "weight": mixed(str(case.body)) % 300}}
    query = case.query if isinstance(case.query, dict) else {}
    # Nothing else may be changed while a configuration waits; before_call has one confirmed.
    query.pop("confirmWithin", None)
    if parts[3] == "interfaces" and len(parts) > 4:
        case.path_parameters["name"] = "lo"
    kind = "/".join(parts[3:])
    if kind in ASKED and mixed(query) % 2:
        case.query = dict(ASKED[kind])
    elif kind in KINDS and "kind" in query:
        query["kind"] = KINDS[kind]
    headers = case.headers or {}
    for header in ("If-Match", "If-None-Match"):
        # What is made up is hardly ever what is there.
        if header in headers and mixed(headers[header]) % 4:
            del headers[header]
    if not isinstance(case.body, dict):
        return case
    if case.method == "PATCH" and mixed(str(case.body)) % 2:
        is_part = "backend" in case.path_parameters
        case.body = {"spec": {"weight": 2}} if is_part else {"metadata": {"labels": {"seen": "yes"}}}
    metadata = case.body.get("metadata")
    if isinstance(name, str) and isinstance(metadata, dict) and "name" in metadata:
        metadata["name"] = name
        metadata.pop("revision", None)
    if parts[-1] == "tokens" and mixed(str(case.body)) % 2:
        case.body = {"metadata": {"name": f"t{mixed(str(case.body)) % 30}"}, "spec": {"role": "viewer"}}
    if parts[-1] == "global" and isinstance(metadata, dict):
        metadata.update(name="global")
        metadata.pop("revision", None)
    if case.method == "PUT" and of in GOOD and mixed(str(case.body)) % 2:
        case.body = good(of, name, case.body.get("spec"))
    if parts[-1] == "config" and mixed(str(case.body)) % 2:
        case.body = {"vips": [good("vips", each, None) for each in NAMES]}
    return case


def good(kind, name, made_up):
    spec = dict(GOOD[kind])
    for field in ("address", "prefix"):
        if field in spec:
            spec[field] = spec[field].format(mixed(name) % 200 + 1)
    if isinstance(made_up, dict) and made_up and mixed(str(made_up)) % 2:
        field = sorted(made_up)[mixed(str(made_up)) % len(made_up)]
        spec[field] = made_up[field]
    return {"metadata": {"name": name}, "spec": spec}


def mixed(text):
    """A number that is the same in every run, which hash() is not."""
    number = 7
    for byte in str(text).encode("utf-8", "surrogatepass"):
        number = (number * 31 + byte) % 1000003
    return number
