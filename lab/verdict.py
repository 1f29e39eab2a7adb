"""From what a guest left behind (report, console) to green or red.

A run is green only if everything that has to be there is there: the final line
of the report, a plan for every suite, exactly the planned number of results,
and every detector alive. Silence alone proves nothing.
"""
import fnmatch
import os
import re

LAB = os.path.dirname(os.path.abspath(__file__))

# A line of the kernel's log, wherever it starts: a program's output on the same
# console may stand before it. What programs print is not searched for splats.
KERNEL_LINE = re.compile(r"\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? (.*)")

SPLATS = re.compile("|".join([
    "WARNING:", "BUG:", "KASAN", "Detected page leak", "INFO: task",
    "possible circular locking", "possible recursive locking", "suspicious RCU",
    "unreferenced object", "new suspected memory leaks",
    r"DMA-API: .*(?:device driver|exceeded|cacheline tracking|error)",
    "Kernel panic", "Oops", "rcu: INFO", "soft lockup", "UBSAN", "general protection",
    "kmemleak: Cannot allocate",
]))

# TAINT_TEST: the kernel sets it itself whenever a KUnit test runs.
TAINT_TEST = 1 << 18

# Detectors that announce themselves on the console; in the debug kernel only.
BANNERS = [
    ("KASAN", "KernelAddressSanitizer initialized"),
    ("kmemleak", "Kernel memory leak detector initialized"),
    ("IOMMU page checks", "iommu: Debugging page allocations"),
    ("page poisoning", "CONFIG_PAGE_POISONING is on"),
]
DETECTOR_FILES = ["/sys/kernel/debug/failslab", "/sys/kernel/debug/fail_page_alloc",
                  "/sys/kernel/debug/kmemleak"]


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except FileNotFoundError:
        return ""


class Tap:
    """Counts the results of one suite: TAP 13, or KTAP with nested subtests.

    Only leaves are counted. The line that closes a subtest repeats the leaves'
    outcome, and only matters when it fails although no leaf did.
    """
    LINE = re.compile(r"^( *)(not ok|ok)\b *(\d*) *-? *(.*)$")
    PLAN = re.compile(r"^( *)1\.\.(\d+)\s*(?:#\s*SKIP\b\s*(.*))?$", re.I)
    DIRECTIVE = re.compile(r"(?:^|\s)#\s*(SKIP|XFAIL|TODO)\b:?\s*(.*)$", re.I)

    def __init__(self, lines):
        self.results = []      # (name, "pass" | "fail" | "skip", reason)
        self.problems = []
        self.planned = 0
        self.plans = 0
        self.scopes = {}       # indentation -> [plan or None, results seen, failed, title]
        self.said = []         # what a test said of its failure
        for line in lines:
            self.line(line.replace("\t", "    "))
        self.close(0)

    def scope(self, depth):
        return self.scopes.setdefault(depth, [None, 0, 0, ""])

    def close(self, depth):
        """End every scope at this depth or deeper. Returns (results, failures) of the nearest."""
        seen = failed = 0
        for d in sorted((d for d in self.scopes if d >= depth), reverse=True):
            plan, n, bad, title = self.scopes.pop(d)
            where = title or ("nested subtest" if d else "suite")
            if plan is None and d == 0 and n:
                self.problems.append(f"{where}: no plan")
            elif plan is not None and plan != n:
                self.problems.append(f"{where}: planned {plan} results, got {n}")
            seen, failed = n, bad
        return seen, failed

    def line(self, line):
        plan = self.PLAN.match(line)
        if plan:
            depth = len(plan[1])
            self.scope(depth)[0] = int(plan[2])
            self.plans += depth == 0
            if plan[3] is not None and plan[2] == "0":
                self.results.append(("(all)", "skip", plan[3]))
                self.scopes.pop(depth)
            return
        stripped = line.lstrip(" ")
        depth = len(line) - len(stripped)
        if re.match(r"(K?TAP) version \d+", stripped):
            # A document of its own; at depth 0 the one before it has ended.
            if depth == 0:
                self.close(0)
            return
        if stripped.startswith("# Subtest: "):
            self.scope(depth)[3] = stripped[11:].strip()
            return
        m = self.LINE.match(line)
        if not m:
            if re.search(r"\bExpected\b|EXPECTATION|ASSERTION|time ?out", stripped, re.I):
                self.said.append(stripped.lstrip("# ").strip())
            return
        bad = m[2] == "not ok"
        text, reason, kind = m[4].strip(), "", "fail" if bad else "pass"
        if bad:
            reason = "; ".join(self.said[:2])
        self.said = []
        d = self.DIRECTIVE.search(text)
        if d:
            word, reason = d[1].upper(), d[2].strip()
            text = text[:d.start()].strip()
            if word == "SKIP":
                # "ok 2 # SKIP name": what kselftest.h prints when it names nothing else
                kind, text = "skip", text or reason
            elif word in ("XFAIL", "TODO"):
                kind, reason = "skip", f"{word.lower()}: {reason}"
        here = self.scope(depth)
        here[1] += 1
        here[2] += kind == "fail"
        if any(d > depth for d in self.scopes):
            seen, failed = self.close(depth + 1)
            if seen:
                # failures below are already counted
                if kind == "fail" and not failed:
                    self.results.append((text, "fail", "failed although no subtest did"))
                return
        title = here[3]
        self.results.append((f"{title}.{text}" if title else text, kind, reason))

    def count(self, kind):
        return sum(1 for r in self.results if r[1] == kind)


def load_allow(path, fields):
    """Lines of `fields` blank-separated words and a reason, which is mandatory."""
    out = []
    for n, line in enumerate(read(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        parts = line.split(None, fields)
        if len(parts) != fields + 1:
            raise SystemExit(f"{path}:{n}: expected {fields} words and a reason, got: {line}")
        out.append(parts)
    return out


def skip_allowed(allow, boot, suite, test):
    return next((a[3] for a in allow if fnmatch.fnmatchcase(boot, a[0])
                 and fnmatch.fnmatchcase(suite, a[1]) and fnmatch.fnmatchcase(test, a[2])), None)


def parse_report(text):
    """The report of a guest: ({key: value}, [suite], complete or None)."""
    state, suites, complete, cur = {"has": []}, [], None, None
    for line in text.splitlines():
        line = line.rstrip("\r")
        if not line.startswith("@lab "):
            if cur is not None:
                cur["lines"].append(line)
            elif line.startswith("leak: "):
                state.setdefault("leaks", []).append(line[6:])
            continue
        word, _, rest = line[5:].partition(" ")
        if word == "suite":
            cur = {"suite": rest, "lines": [], "ended": False}
            suites.append(cur)
        elif word == "end" and cur is not None:
            v = dict(p.split("=", 1) for p in rest.split()[1:])
            cur.update(ended=True, rc=int(v.get("rc") or 255),
                       seconds=round(float(v["stop"]) - float(v["start"]), 1))
            cur = None
        elif word == "complete":
            complete = int(rest.split()[0])
        elif word == "has":
            state["has"].append(rest)
        else:
            state[word] = rest
    return state, suites, complete


def values(lines):
    """What two kernels are compared by: {name: words} of the lines "value NAME WORDS".

    Where each of the words is FIELD=WORD, it is one value a field.
    """
    out = {}
    for m in (re.match(r"value (\S+)(.*)$", ln) for ln in lines):
        fields = [w.split("=", 1) for w in m[2].split()] if m else []
        if fields and all(len(f) == 2 for f in fields):
            out.update({f"{m[1]}.{f[0]}": f[1] for f in fields})
        elif m:
            out[m[1]] = m[2].strip()
    return out


def splats(console, allow):
    """Splats in the kernel's log, first one first, without the allowed ones."""
    found = []
    for line in console.splitlines():
        m = KERNEL_LINE.search(line)
        if not m or not SPLATS.search(m[1]):
            continue
        if any(re.search(a[0].replace("\\s", " "), m[1]) for a in allow):
            continue
        found.append(m[1].strip())
    return found


def by_name(results):
    """{name: outcome}; a name that comes again is numbered."""
    out = {}
    for name, kind, _ in results:
        n, key = 1, name
        while key in out:
            n += 1
            key = f"{name} ({n})"
        out[key] = kind
    return out


def judge(boot, kernel_kind, wanted, report, console, timed_out=None, dma_debug=True,
          kmemleak=True, iommu_pages=True, filtered=False):
    """The verdict on one boot, as a dictionary. "red" is empty if it is green.

    kernel_kind "debug" additionally demands that every detector is alive.
    With filtered=True a suite without results is no fault: the filter may
    only fit another one.
    """
    allow_skip = load_allow(os.path.join(LAB, "skips.allow"), 3)
    allow_console = load_allow(os.path.join(LAB, "console.allow"), 1)
    state, suites, complete = parse_report(report)
    red = []

    found = splats(console, allow_console)
    # A panic and its lines of context come in dozens; the first ones say it.
    red += [f"kernel log: {s}" for s in found[:5]]
    if state.get("kmemleak_bytes", "0") != "0":
        first = next((s for s in state.get("leaks", []) if s.strip()), "")
        red.append(f"kmemleak: {first.strip() or state['kmemleak_bytes'] + ' bytes'}")
    if timed_out:
        cur = next((s for s in suites if not s["ended"]), None)
        where = "before the first suite" if not suites else "after the last suite"
        if cur:
            last = next((ln for ln in reversed(cur["lines"]) if ln.strip()), "nothing")
            where = f"in suite {cur['suite']}, whose last line is: {last.strip()}"
        red.append(f"time-out after {timed_out} s {where}")

    out = []
    for s in suites:
        tap = Tap(s["lines"])
        r = {"suite": s["suite"], "plan": None if not tap.plans else len(tap.results),
             "pass": tap.count("pass"), "fail": tap.count("fail"), "skip": tap.count("skip"),
             "skips": [{"test": n, "reason": why} for n, k, why in tap.results if k == "skip"],
             "failed": [n for n, k, why in tap.results if k == "fail"],
             "tests": by_name(tap.results), "values": values(s["lines"]),
             "seconds": s.get("seconds"), "rc": s.get("rc")}
        bad = [f"{s['suite']}: {p}" for p in tap.problems]
        bad += [f"{s['suite']}: not ok {n}" + (f" ({why})" if why else "")
                for n, _, why in [t for t in tap.results if t[1] == "fail"][:10]]
        if not s["ended"]:
            bad.append(f"{s['suite']}: did not end")
        elif not tap.results and not filtered:
            bad.append(f"{s['suite']}: no results at all (exit code {s['rc']})")
        elif s["rc"] and not r["failed"] and not (s["rc"] == 4 and r["skip"] and not r["pass"]):
            bad.append(f"{s['suite']}: exit code {s['rc']} although no test failed")
        for k in r["skips"]:
            k["allowed"] = skip_allowed(allow_skip, boot, s["suite"], k["test"])
            if not k["allowed"]:
                bad.append(f"{s['suite']}: skipped without leave: {k['test']} ({k['reason'] or 'no reason'}); "
                           "fix it or add it to lab/skips.allow with a reason")
        r["bad"] = bad
        red += bad
        out.append(r)

    missing = [w for w in wanted if w not in [s["suite"] for s in suites]]
    if missing:
        red.append(f"suites that never started: {', '.join(missing)}")
    if complete is None:
        red.append("the report has no final line: the guest did not get to its end")
    elif complete != len(wanted):
        red.append(f"the guest ran {complete} suites instead of {len(wanted)}")

    if complete is not None and "taint" in state and int(state["taint"]) & ~TAINT_TEST:
        red.append(f"the kernel is tainted: {state['taint']}")
    if kernel_kind == "debug" and complete is not None:
        # A boot may do without some; all others are demanded.
        off = {"kmemleak": not kmemleak, "IOMMU page checks": not iommu_pages}
        banners = [b for b in BANNERS if not off.get(b[0])]
        if state.get("debug_locks") != "1":
            red.append(f"lockdep is off: debug_locks = {state.get('debug_locks', 'not reported')}")
        if kmemleak and ("kmemleak_dead" in state or "kmemleak_bytes" not in state):
            red.append("kmemleak is off: it refused a scan")
        if "taint" not in state:
            red.append("the guest did not report its taint")
        for name, text in banners:
            if text not in console:
                red.append(f"detector missing: {name} (no \"{text}\" on the console)")
        for f in DETECTOR_FILES:
            if f not in state["has"] and (kmemleak or not f.endswith("kmemleak")):
                red.append(f"detector missing: no {f}")
        if dma_debug:
            if "DMA-API: preallocated" not in console or state.get("dma_api_disabled") != "N":
                red.append("detector missing: dma-debug is off in a boot that asks for it")
            elif state.get("dma_api_errors") != "0":
                red.append(f"dma-debug counted errors: {state.get('dma_api_errors')}")

    return {"boot": boot, "red": red, "suites": out, "splats": found[:50], "complete": complete,
            "taint": state.get("taint"), "debug_locks": state.get("debug_locks"),
            "kmemleak_bytes": state.get("kmemleak_bytes")}
