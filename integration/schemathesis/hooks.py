"""Makes requests meet and lets some of them in.

A document's name is the path's, a few names come again and again, and many a document is a good one, or one with one field
of what was made up.
"""

import schemathesis

NAMES = ("web", "api", "db")
BACKENDS = [{"address": "10.0.0.1", "port": 8080}, {"address": "10.0.0.2", "port": 8080}]
# The last number of a VIP's address is that of its name.
GOOD = {
    "vips": {"address": "203.0.113.{}", "port": 80, "backends": BACKENDS},
    "pools": {"addresses": ["198.51.100.0/28"]},
    "health-checks": {"kind": "tcp"},
    "nodes": {"drain": False},
    "static-routes": {"prefix": "198.18.0.0/24", "kind": "blackhole"},
    "addresses": {"interface": "eth9", "address": "198.18.1.1/24"},
    "bgp/peers": {"address": "198.51.100.{}", "asn": 65001, "passive": True},
    "bgp/peer-groups": {"asn": 65001, "hold_time_secs": 9},
    "bgp/policies": {"statements": [{"action": "accept"}]},
    "bgp/sets": {"prefixes": ["10.0.0.0/8"]},
}


@schemathesis.hook
def map_case(context, case):
    name = case.path_parameters.get("name") if case.path_parameters else None
    parts = case.path.split("/")
    kind = "/".join(parts[3:-1])
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
    # Nothing else may be changed while a configuration waits to be confirmed.
    query = case.query if isinstance(case.query, dict) else {}
    query.pop("confirmWithin", None)
    headers = case.headers or {}
    for header in ("If-Match", "If-None-Match"):
        # What is made up is hardly ever what is there.
        if header in headers and mixed(headers[header]) % 4:
            del headers[header]
    if not isinstance(case.body, dict):
        return case
    if case.method == "PATCH" and mixed(str(case.body)) % 2:
        case.body = {"metadata": {"labels": {"seen": "yes"}}}
    metadata = case.body.get("metadata")
    if isinstance(name, str) and isinstance(metadata, dict) and "name" in metadata:
        metadata["name"] = name
        metadata.pop("revision", None)
    if parts[-1] == "tokens" and mixed(str(case.body)) % 2:
        case.body = {"metadata": {"name": f"t{mixed(str(case.body)) % 30}"}, "spec": {"role": "viewer"}}
    if parts[-1] == "global" and isinstance(metadata, dict):
        metadata.update(name="global")
        metadata.pop("revision", None)
    if case.method == "PUT" and kind in GOOD and mixed(str(case.body)) % 2:
        case.body = good(kind, name, case.body.get("spec"))
    if parts[-1] == "config" and mixed(str(case.body)) % 2:
        case.body = {"vips": [good("vips", each, None) for each in NAMES]}
    return case


def good(kind, name, made_up):
    spec = dict(GOOD[kind])
    if "address" in spec:
        spec["address"] = spec["address"].format(mixed(name) % 200 + 1)
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
