"""Which tests each guest has to run: lab/tests.list.

A guest has a label. The file has sections "[suite] label label ...", and below each of them the
names, indented, of the tests that exactly these guests run in this suite.

listed, as load() gives it, is {label: {suite: set of names}}. A result is what verdict.judge() gives.
"""
import os
import re

LAB = os.path.dirname(os.path.abspath(__file__))
PATH = os.path.join(LAB, "tests.list")
RECORD = "if that is meant: make record-tests"

# These come with the distribution: which tests there are depends on its version. They run on both
# kernels, and a test that only one of them has is a difference.
THEIRS = ["rdma-pyverbs"]

# One test of each of these suites has as many names as there are formats of page tables, and
# a format may lack what it needs. One of them has to run it.
FORMATS = ["iommupt"]


def load(path=PATH):
    listed, section = {}, None
    with open(path, encoding="utf-8") as f:
        for n, line in enumerate(f, 1):
            head, name = re.match(r"\[(\S+)\] (\S.*)$", line), line.strip()
            if head:
                section = [listed.setdefault(label, {}).setdefault(head[1], set()) for label in head[2].split()]
            elif name and not line.startswith("#"):
                if not section or not line.startswith(" ") or any(name in names for names in section):
                    raise SystemExit(f"{path}:{n}: expected: [suite] labels, or below it names, indented, each once\n"
                                     f"  seen:     {line.rstrip()}\n  next:     make record-tests")
                for names in section:
                    names.add(name)
    return listed


def some(names):
    """The first five, and how many there are."""
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def problems(listed, label, suite, names):
    """Problems of one suite that ran to its end without a filter; names: of all its results."""
    if suite in THEIRS:
        return []
    if label not in listed:
        return [f"no guest named {label} in lab/tests.list; {RECORD}"]
    if suite not in listed[label]:
        return [f"no suite {suite} for {label} in lab/tests.list; {RECORD}"]
    missing, new = listed[label][suite] - set(names), set(names) - listed[label][suite]
    out = []
    if missing:
        out.append(f"{len(missing)} of {len(listed[label][suite])} listed tests did not run: {some(missing)}; {RECORD}")
    if new:
        out.append(f"{len(new)} tests are not in lab/tests.list: {some(new)}; {RECORD}")
    return out


def missing_suites(listed, label, suites):
    return [f"{s}: not run, although lab/tests.list has it for {label}; {RECORD}"
            for s in sorted(listed.get(label, {})) if s not in suites]


def missing_guests(listed, results, left_out=()):
    """After a complete run; left_out: labels of guests that were not to run."""
    ran = {r["label"] for r in results} | set(left_out)
    return [f"{label}: no such guest ran, although lab/tests.list has it; {RECORD}" for label in sorted(set(listed) - ran)]


def one_test(suite, name):
    """A test's name without the format, and without what depends on the format."""
    return name.split(".")[1] if suite in FORMATS and "." in name else name


def nowhere(listed, results):
    """After a complete run: a problem for each test that ran on none of the guests that list it.

    It is not judged if one of these guests was left out. A skip that a rule for `*` allows says
    that the test can run nowhere.
    """
    outcomes, meant = {}, set()
    for r in results:
        for s in r["suites"]:
            outcomes[r["label"], s["suite"]] = s["tests"]
            meant |= {(s["suite"], one_test(s["suite"], k["test"])) for k in s["skips"]
                      if (k["rule"] or "").startswith("* ")}
    ran_on = {r["label"] for r in results}
    seen = {}       # (suite, test) -> [on which guests, did it run]
    for label, suites in listed.items():
        for suite, names in suites.items():
            for name in names:
                on = seen.setdefault((suite, one_test(suite, name)), [set(), False])
                on[0].add(label)
                on[1] |= label not in ran_on or outcomes.get((label, suite), {}).get(name) in ("pass", "fail")
    return [f"{suite}: {test} ran on no guest (skipped or absent on {' '.join(sorted(on))}); "
            "give one of them what it needs, or allow it in lab/skips.allow for *"
            for (suite, test), (on, ran) in sorted(seen.items()) if not ran and (suite, test) not in meant]


def write(results, labels, path=PATH):
    """Record what ran. A guest of `labels` that did not run keeps its lines, one that is not in it loses them."""
    listed = {k: v for k, v in (load(path) if os.path.exists(path) else {}).items() if k in labels}
    for r in results:
        listed[r["label"]] = {s["suite"]: set(s["tests"]) for s in r["suites"] if s["suite"] not in THEIRS}
    on = {}         # (suite, name) -> labels
    for label, suites in listed.items():
        for suite, names in suites.items():
            for name in names:
                on.setdefault((suite, name), set()).add(label)
    sections = {}
    for (suite, name), names in on.items():
        sections.setdefault((suite, " ".join(sorted(names))), []).append(name)
    with open(path, "w", encoding="utf-8") as f:
        f.write("# The tests that each guest has to run: [suite] guests, and the names. `make record-tests` writes it.\n")
        for (suite, names), tests in sorted(sections.items()):
            f.write(f"\n[{suite}] {names}\n" + "".join(f"  {t}\n" for t in sorted(tests)))
