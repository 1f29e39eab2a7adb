"""The committed lists of exceptions: skips, kernel messages, differences, and the floors.

Each is a table in a file of its own. Columns are separated by two blanks or more, so that a
column may have single blanks in it. The last column is the explanation, which is mandatory.
"""
import collections
import fnmatch
import os
import re

LAB = os.path.dirname(os.path.abspath(__file__))


def table(path, *names):
    """The rows of a table: tuples with a field of each of the names, "why" and "line"."""
    row = collections.namedtuple("row", [*names, "why", "line"])
    out = []
    with open(path, encoding="utf-8") as f:
        for n, line in enumerate(f, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            words = re.split(r"\s{2,}|\t", line)
            if len(words) != len(names) + 1:
                raise SystemExit(f"{path}:{n}: wrong number of columns\n"
                                 f"  expected: {', '.join(names)} and an explanation, two blanks or more between them\n"
                                 f"  seen:     {' | '.join(words)}\n  next:     edit {path}")
            out.append(row(*words, n))
    return out


# ------------------------------------------------------------------------ skips

SKIPS = os.path.join(LAB, "skips.allow")


def skip_rules(path=SKIPS):
    return table(path, "boots", "suite", "test", "reason")


def boots_match(boots, names):
    """`*`, `a,b` or `!a,b` (all but these), against the names of a guest: its boot and its label."""
    if boots == "*":
        return True
    listed = set(boots.removeprefix("!").split(","))
    return bool(listed & names) != boots.startswith("!")


def skip_rule(rules, guest, suite, test, reason):
    """The first rule that allows a skip, or None. A rule's reason is a part of the reason that the test gave."""
    return next((r for r in rules if boots_match(r.boots, guest) and fnmatch.fnmatchcase(suite, r.suite)
                 and fnmatch.fnmatchcase(test, r.test) and r.reason in reason), None)


def rule_text(rule):
    return "  ".join(rule[:4])


def unused_skips(results, left_out=(), path=SKIPS):
    """After a complete run: a problem for each rule that no skip needed.

    left_out: (boot, label) of guests that did not run. A rule that one of them may need is not judged.
    """
    used = {k["rule"] for r in results for s in r["suites"] for k in s["skips"]}
    return [f"lab/skips.allow:{r.line}: unused rule: {rule_text(r)}: no guest skipped such a test "
            "for that reason; delete the rule, or find out why the test ran" for r in skip_rules(path)
            if rule_text(r) not in used and not any(boots_match(r.boots, set(names)) for names in left_out)]


# ------------------------------------------------------------------------ two kernels

Difference = collections.namedtuple("Difference", "name patched why line", defaults=[0])


def differs_rules(path=os.path.join(LAB, "differs.allow")):
    return [Difference(*row) for row in table(path, "name", "patched")]


def differs(rules, name, unpatched, patched):
    """Why two kernels are meant to differ here, or None. Each rule says what the patched one has to do."""
    return next((r.why for r in rules if fnmatch.fnmatchcase(name, r.name) and unpatched != patched == r.patched), None)


def unused_differs(rules, pairs):
    """pairs: (name, unpatched, patched) of all that was compared. A problem for each rule that nothing needed."""
    pairs = list(pairs)
    return [f"lab/differs.allow:{r.line}: unused rule: {r.name} {r.patched}: both kernels do the same, or it did not run; "
            "delete the rule" for r in rules if not any(differs([r], *p) for p in pairs)]


def floor(name, suite, path=os.path.join(LAB, "floors")):
    """Problems if a program passes fewer of its tests than it once did; suite: its part of a guest's result."""
    row = next((r for r in table(path, "program", "passes") if r.program == name), None)
    if not row:
        return [f"{name} has no line in lab/floors: add one with the number of tests that pass"]
    passes = suite["pass"] if suite else 0
    if passes < int(row.passes):
        return [f"{name}: {passes} tests passed, expected at least {row.passes} (lab/floors): "
                "something that the program needs is gone; read its skips in report.log"]
    return []
