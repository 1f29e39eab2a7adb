"""Programs on the unpatched and on the patched kernel, side by side.

What the unpatched kernel answers does not change while neither it nor the programs do. It is
recorded in lab/record, one file a set of programs, with a key of all that it depends on. While
the key fits, the unpatched kernel is neither built nor booted.
"""
import hashlib
import json
import os
import re

import boots
import vm

RECORD = os.path.join(vm.LAB, "record")


def file_hash(*paths):
    h = hashlib.sha256()
    for p in sorted(paths):
        with open(p, "rb") as f:
            h.update(os.path.basename(p).encode() + b"\0" + f.read())
    return h.hexdigest()[:16]


def kernel_source():
    """The checksum of the tarball that build/linux was made from."""
    text = vm.verdict.read(os.path.join(vm.BUILD, "linux/.git/lab-base"))
    m = re.search(r"^SOURCE=(.*)$", text, re.M)
    want = re.search(r"^KERNEL_SHA256=(\S+)$", text, re.M)
    own = m and not m[1].startswith(vm.BUILD)
    return "another source" if own or not want else want[1][:16]


def key(pair):
    """What the answers of the unpatched kernel depend on, by name. Of QEMU's version two numbers count."""
    config = [os.path.join(vm.LAB, "config", f + ".config") for f in boots.FRAGMENTS["base"]]
    words = json.dumps([boots.CMDLINE, boots.BOOTS[pair.what], pair.suites, pair.base_extra], sort_keys=True)
    return {"kernel": kernel_source(), "configuration": file_hash(*config),
            "programs": f"{file_hash(*pair.sources)} {pair.versions()}".strip(),
            "boot": hashlib.sha256(words.encode()).hexdigest()[:16], "QEMU": ".".join(vm.qemu_version().split(".")[:2])}


class Pair:
    """A set of programs: a boot of that name, its suites, and the files that make the programs."""

    def __init__(self, what, suites, sources, *, extra="", base_extra="", versions=lambda: "", seconds=60, **options):
        self.what, self.suites, self.versions = what, suites, versions
        self.sources = [os.path.join(vm.LAB, s) for s in sources]
        self.extra, self.base_extra, self.options = extra, f"{extra} {base_extra}".strip(), options
        self.seconds = seconds

    def path(self):
        return os.path.join(RECORD, self.what + ".json")

    def run(self, which, kernel, initrd, **more):
        r = vm.Run(kernel, initrd, self.what, self.suites, os.path.join(vm.BUILD, "logs", f"{self.what}-{which}"),
                   kind="run", timeout=3600, extra=self.base_extra if which == "base" else self.extra,
                   label=f"{self.what}-{which}", **{"seconds": self.seconds, "essential": False, **self.options, **more})
        r.which = which
        return r

    def recorded(self):
        """(the recorded answers or None, why not)"""
        try:
            with open(self.path(), encoding="utf-8") as f:
                rec = json.load(f)
        except FileNotFoundError:
            return None, "nothing is recorded"
        now = key(self)
        for name, value in now.items():
            if rec["key"].get(name) != value:
                return None, f"it is recorded for {name} {rec['key'].get(name)}, here it is {value}"
        return rec, ""


def answers(result):
    """What is compared of a guest's result."""
    return {"suites": {s["suite"]: {"rc": s["rc"], "tests": s["tests"], "values": s["values"]} for s in result["suites"]},
            "splats": [re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+", "#", s) for s in result["splats"]]}


def changes(old, new):
    """Lines that say in what two sets of answers differ."""
    out = []
    for suite in sorted({*old["suites"], *new["suites"]}):
        x, y = (r["suites"].get(suite, {"rc": None, "tests": {}, "values": {}}) for r in (old, new))
        for kind in ("tests", "values"):
            for name in sorted({*x[kind], *y[kind]}):
                u, v = x[kind].get(name, "missing"), y[kind].get(name, "missing")
                if u != v:
                    out.append(f"{suite}/{name}: {u} -> {v}")
    for s in sorted({*old["splats"], *new["splats"]}):
        u, v = old["splats"].count(s), new["splats"].count(s)
        if u != v:
            out.append(f"kernel log, {u} times -> {v} times: {s}")
    for name in sorted({*old.get("crash", {}), *new.get("crash", {})}):
        u, v = old.get("crash", {}).get(name, "missing"), new.get("crash", {}).get(name, "missing")
        if u != v:
            out.append(f"alone, {name}: {u} -> {v}")
    return out


def write(pair, new):
    """Put answers on record; returns what changed, or None if there was no record."""
    try:
        with open(pair.path(), encoding="utf-8") as f:
            old = json.load(f)
    except FileNotFoundError:
        old = None
    os.makedirs(RECORD, exist_ok=True)
    with open(pair.path(), "w", encoding="utf-8") as f:
        json.dump({"key": key(pair), **new}, f, indent=1, sort_keys=True)
        f.write("\n")
    return changes(old, new) if old else None
