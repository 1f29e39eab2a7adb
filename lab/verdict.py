"""From what a guest left behind (report, console, QEMU's output) to green or red.

A run is green only if everything that has to be there is there: the final line
of the report, a plan for every suite, exactly the planned number of results,
and every detector alive. Silence alone proves nothing.
"""
import collections
import dataclasses
import os
import re

import allow
import manifest
from tap import Tap

# A line of the kernel's log, wherever it starts: a program's output on the same
# console may stand before it. What programs print is not searched for splats.
KERNEL_LINE = re.compile(r"\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? (.*)")

SPLATS = re.compile("|".join([
    "WARNING:", "BUG:", "KASAN", "KCSAN", "INFO: task", "Kernel panic", "Oops", "general protection", "soft lockup",
    # lockdep, RCU
    "possible circular locking", "possible recursive locking", "suspicious RCU", "rcu: INFO", "detected stall",
    "lock held when returning to user space", "locks still held", "held lock freed",
    # memory and data structures
    "Detected page leak", "unreferenced object", "new suspected memory leaks", "kmemleak: Cannot allocate",
    "Bad page state", "Bad page map", "page dumped because", "pagealloc: memory corruption",
    "list_(?:add|del) corruption", "refcount_t:", "stack-protector:", "UBSAN",
    "sleeping function called from invalid context", "scheduling while atomic",
    r"DMA-API: .*(?:device driver|exceeded|cacheline tracking|error)",
    # The IOMMU itself is in trouble. That it stops a device is none: those lines are not here.
    "VT-d detected Invalidation (?:Queue|Time-out|Completion) Error", "DMAR hardware is malfunctioning",
    "DMAR: .*(?:timeout|timed out|failed to enable fault)",
    # VT-d: 1 to 6 stop a device; above are tables that it cannot read, and interrupts.
    r"\[fault reason 0x(?!0[1-6]\])",
    "AMD-Vi: .*(?:Completion-Wait loop timed out|Command buffer timeout|No event written)",
    r"Event logged \[(?!IO_PAGE_FAULT)",
    "arm-smmu-v3.*(?:CMDQ error|CMDQ timeout|CMD_SYNC timeout|unexpected global error|Service Failure Mode|write aborted)",
    "virtio_iommu.*(?:invalid event buffer|could not add event buffer|config changed)",
    "iommu: unaligned:",
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

# Boots with an IOMMU that stops the test device. The suite gup_range makes it stop it; on no
# other boot may there be a fault.
PROTECTED = "intel-strict,intel-lazy,amd,virtio"
# Where QEMU records each such fault. It has an event for AMD-Vi, and no code that uses it.
RECORDED = "intel-strict,intel-lazy,virtio"

# Each oracle of the suite gup_range shows once, by a known imbalance, that it is alive: it
# prints "# probe NAME ok". The boots that must have the line; QEMU's AMD IOMMU logs no faults.
PROBES = {
    "backend": "*", "pins": "*", "vmpin": "*", "failnth": "*",
    "swiotlb": "direct,swiotlb,intel-pt",
    "iova": PROTECTED, "trace": PROTECTED,
    "faults": "intel-strict,intel-lazy,virtio",
}

# What QEMU is asked to trace, `-trace NAME` each: faults of devices, and trouble of the IOMMU's own.
QEMU_TRACE = [
    "vtd_dmar_fault", "amdvi_page_fault", "virtio_iommu_report_fault",
    "vtd_inv_desc_wait_write_fail", "vtd_warn_invalid_qi_tail", "amdvi_command_error", "amdvi_command_read_fail",
    "amdvi_completion_wait_fail", "amdvi_evntlog_fail", "amdvi_get_pte_hwerror", "amdvi_dte_get_fail", "amdvi_mode_invalid"]

QEMU_FAULT = re.compile("|".join([
    # Reasons below 7 are the second stage's; the first stage has 0x71 (not present), 0x80 (not
    # canonical) and 0x85 (not for writing).
    r"\bvtd_dmar_fault sid \w+ fault (?:[1-6]|113|128|133) addr (0x[0-9a-f]+)",
    r"\bamdvi_page_fault .* address (0x[0-9a-f]+)",
    r"\bvirtio_iommu_report_fault .* address =(0x[0-9a-f]+)",
    # On stderr, at most one line of each kind a guest
    r"vtd_\w+: detected (?:translation failure|slpte permission error|IOVA overflow|non canonical IOVA).*iova=(0x[0-9a-f]+)",
    r"virtio_iommu_translate (?:no mapping for|permission error on) (0x[0-9a-f]+)",
]))

# What QEMU prints and nobody needs to know
QEMU_HARMLESS = re.compile("|".join([
    r"warning: (?:TCG|host) doesn't support requested feature",
    # While the guest's driver sets AMD-Vi up
    r"amdvi_command_error .*Executing commands with command buffer disabled",
    # VT-d has one register for faults; the trace has them all.
    "[Nn]ew fault is not recorded",
]))


@dataclasses.dataclass
class Guest:
    """What is known of a guest that has ended."""
    boot: str
    kind: str                   # kernel; "debug" demands that every detector is alive
    suites: list                # that it was to run
    report: str
    console: str
    cmdline: str = ""
    label: str = ""             # its name in lab/tests.list, if that is not the boot's
    qemu: str | None = None     # what QEMU printed and traced; None: not recorded
    timed_out: int | None = None
    filtered: bool = False      # only tests of some name: no suite needs to have results
    listed: dict | None = None  # lab/tests.list; None: not asked

    @property
    def names(self):
        return {self.boot, self.label or self.boot}


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as f:
            return f.read()
    except FileNotFoundError:
        return ""


# ------------------------------------------------------------------------ report

def suite_lines(report):
    """What the suites printed. The guest puts a "|" before each of their lines."""
    return [ln[1:].rstrip("\r") for ln in report.split("\n") if ln.startswith("|")]


def parse_report(text):
    """The report of a guest: ({key: value}, [suite], complete or None).

    Lines begin with "@lab " (ours), "|" (a suite's) or "leak: " (kmemleak's); others are stray.
    """
    state, suites, complete, cur = {"has": [], "leaks": [], "stray": []}, [], None, None
    # Not splitlines(): it breaks lines where a test, but not the guest's shell, would.
    for line in text.split("\n"):
        line = line.rstrip("\r")
        word, _, rest = line.removeprefix("@lab ").partition(" ")
        if line.startswith("|") and cur is not None:
            cur["lines"].append(line[1:])
        elif line.startswith("leak: "):
            state["leaks"].append(line[6:])
        elif not line.startswith("@lab "):
            state["stray"] += [line] if line else []
        elif word == "suite":
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


# ------------------------------------------------------------------------ kernel log, QEMU

def splats(console):
    """Splats in the kernel's log, first one first, without the allowed ones."""
    allowed = allow.table(os.path.join(allow.LAB, "console.allow"), "pattern")
    found = []
    for line in console.splitlines():
        m = KERNEL_LINE.search(line)
        if m and SPLATS.search(m[1]) and not any(re.search(a.pattern, m[1]) for a in allowed):
            found.append(m[1].strip())
    return found


def new_splats(base, patched):
    """What the patched kernel said more often than the unpatched one. Numbers do not count.

    base, patched: results of judge().
    """
    def said(result):
        return collections.Counter(re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+", "#", s) for s in result["splats"])
    was = said(base)
    return [f"{text} (unpatched {was[text]} times, patched {n})"
            for text, n in sorted(said(patched).items()) if n > was[text]]


def qemu_faults(text):
    """(addresses of DMA that an IOMMU stopped, other lines), of what QEMU printed and traced.

    Stderr has VT-d's and virtio-iommu's faults once a kind; only the trace events have them all, and AMD's.
    """
    faults, other = [], []
    for line in text.splitlines():
        m = QEMU_FAULT.search(line)
        if m:
            faults.append(next(int(g, 16) for g in m.groups() if g))
        elif line.strip() and not QEMU_HARMLESS.search(line):
            other.append(line.strip())
    return faults, other


# ------------------------------------------------------------------------ judging

def judge_leaks(state):
    if state.get("kmemleak_bytes", "0") == "0":
        return []
    first = next((s for s in state["leaks"] if s.strip()), "")
    return [f"kmemleak: {first.strip() or state['kmemleak_bytes'] + ' bytes'}"]


def judge_time(guest, suites):
    if not guest.timed_out:
        return []
    cur = next((s for s in suites if not s["ended"]), None)
    where = "before the first suite" if not suites else "after the last suite"
    if cur:
        last = next((ln for ln in reversed(cur["lines"]) if ln.strip()), "nothing")
        where = f"in suite {cur['suite']}, whose last line is: {last.strip()}"
    return [f"time-out after {guest.timed_out} s {where}"]


def judge_results(guest, s, tap):
    """Problems of a suite as its own output tells them."""
    bad = list(tap.problems)
    failed = [(n, why) for n, kind, why in tap.results if kind == "fail"]
    bad += [f"not ok {n}" + (f" ({why})" if why else "") for n, why in failed[:10]]
    if not s["ended"]:
        bad.append("did not end")
    elif not tap.results and not guest.filtered:
        bad.append(f"no results at all (exit code {s['rc']})")
    elif s["rc"] and not failed and not (s["rc"] == 4 and tap.count("skip") and not tap.count("pass")):
        bad.append(f"exit code {s['rc']} although no test failed")
    return bad


def judge_probes(guest, s):
    if s["suite"] != "gup_range" or guest.filtered or not s["ended"]:
        return []
    alive = {m[1] for m in (re.match(r"# probe (\S+) ok$", ln) for ln in s["lines"]) if m}
    return [f"oracle not shown to be alive: {name} (no \"# probe {name} ok\" in the output)"
            for name, boots in PROBES.items() if allow.boots_match(boots, guest.names) and name not in alive]


def judge_suite(guest, s, rules):
    """One suite of a guest; its problems are in "bad"."""
    tap = Tap(s["lines"])
    r = {"suite": s["suite"], "plan": None if not tap.plans else len(tap.results),
         "pass": tap.count("pass"), "fail": tap.count("fail"), "skip": tap.count("skip"), "skips": [],
         "failed": [n for n, kind, _ in tap.results if kind == "fail"],
         "tests": tap.by_name(), "values": values(s["lines"]), "seconds": s.get("seconds"), "rc": s.get("rc")}
    bad = judge_results(guest, s, tap) + judge_probes(guest, s)
    for name, kind, why in tap.results:
        if kind != "skip":
            continue
        rule = allow.skip_rule(rules, guest.names, s["suite"], name, why)
        r["skips"].append({"test": name, "reason": why, "allowed": rule.why if rule else None,
                           "rule": allow.rule_text(rule) if rule else None})
        if not rule:
            bad.append(f"skipped without leave: {name} ({why or 'no reason'}); "
                       "fix it or add it to lab/skips.allow with a reason")
    if guest.listed is not None and not guest.filtered and s["ended"]:
        bad += manifest.problems(guest.listed, guest.label or guest.boot, s["suite"], r["tests"])
    r["bad"] = [f"{s['suite']}: {b}" for b in bad]
    return r


def judge_end(guest, state, suites, complete):
    """Is the report whole?"""
    red = [f"stray line in the report: {line}" for line in state["stray"][:3]]
    started = [s["suite"] for s in suites]
    missing = [w for w in guest.suites if w not in started]
    if missing:
        red.append(f"suites that never started: {', '.join(missing)}")
    if guest.listed is not None and not guest.filtered:
        red += manifest.missing_suites(guest.listed, guest.label or guest.boot, started)
    if complete is None:
        red.append("the report has no final line: the guest did not get to its end")
    elif complete != len(guest.suites):
        red.append(f"the guest ran {complete} suites instead of {len(guest.suites)}")
    if complete is not None and "taint" in state and int(state["taint"]) & ~TAINT_TEST:
        red.append(f"the kernel is tainted: {state['taint']}")
    return red


def judge_detectors(guest, state):
    """Is every detector of the debug kernel alive, but for those that the command line turns off?"""
    words = guest.cmdline.split()
    kmemleak = "kmemleak=off" not in words
    off = {"kmemleak": not kmemleak, "IOMMU page checks": "iommu.debug_pagealloc=0" in words}
    red = []
    if state.get("debug_locks") != "1":
        red.append(f"lockdep is off: debug_locks = {state.get('debug_locks', 'not reported')}")
    if kmemleak and ("kmemleak_dead" in state or "kmemleak_bytes" not in state):
        red.append("kmemleak is off: it refused a scan")
    if "taint" not in state:
        red.append("the guest did not report its taint")
    red += [f"detector missing: {name} (no \"{text}\" on the console)" for name, text in BANNERS
            if not off.get(name) and text not in guest.console]
    red += [f"detector missing: no {f}" for f in DETECTOR_FILES
            if f not in state["has"] and (kmemleak or not f.endswith("kmemleak"))]
    if "dma_debug=off" in words:
        return red
    if "DMA-API: preallocated" not in guest.console or state.get("dma_api_disabled") != "N":
        red.append("detector missing: dma-debug is off in a boot that asks for it")
    elif state.get("dma_api_errors") != "0":
        red.append(f"dma-debug counted errors: {state.get('dma_api_errors')}")
    return red


def judge_qemu(guest, complete):
    """What QEMU saw of the IOMMU. It is an oracle beside the guest's own log, so it must not be blind."""
    faults, other = qemu_faults(guest.qemu or "")
    red = [f"QEMU: {line}" for line in other[:5]]
    if guest.qemu is None or "gup_range" not in guest.suites:
        return red
    protected = allow.boots_match(PROTECTED, guest.names)
    if faults and not protected:
        red.append(f"QEMU: {len(faults)} DMA faults, the first at {faults[0]:#x}, on a boot where no IOMMU stops a device")
    if not faults and allow.boots_match(RECORDED, guest.names) and not guest.filtered and complete is not None:
        red.append("QEMU recorded no DMA fault although tests provoke them: it is blind (-trace, stderr)")
    return red


def judge(guest):
    """The verdict on one guest, as a dictionary. "red" is empty if it is green."""
    rules = allow.skip_rules()
    state, suites, complete = parse_report(guest.report)
    found = splats(guest.console)
    # A panic and its lines of context come in dozens; the first ones say it.
    red = [f"kernel log: {s}" for s in found[:5]] + judge_leaks(state) + judge_time(guest, suites)
    out = [judge_suite(guest, s, rules) for s in suites]
    red += [b for r in out for b in r["bad"]] + judge_end(guest, state, suites, complete)
    if guest.kind == "debug" and complete is not None:
        red += judge_detectors(guest, state)
    red += judge_qemu(guest, complete)
    return {"boot": guest.boot, "label": guest.label or guest.boot, "red": red, "suites": out, "splats": found,
            "complete": complete, "taint": state.get("taint"), "debug_locks": state.get("debug_locks"),
            "kmemleak_bytes": state.get("kmemleak_bytes")}
