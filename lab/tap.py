"""What a test program printed: TAP 13, or KTAP with nested subtests."""
import re


class Tap:
    """The results of one suite.

    Only leaves are counted. The line that closes a subtest repeats the leaves'
    outcome, and only matters when it fails although no leaf did. A leaf's name
    begins with the names of all subtests around it.

    The kernel's tools/testing/kunit/kunit_parser.py is not used: it calls a document without a plan a success.
    """
    LINE = re.compile(r"^( *)(not ok|ok)\b *(\d*) *-? *(.*)$")
    PLAN = re.compile(r"^( *)1\.\.(\d+)\s*(?:#\s*SKIP\b\s*(.*))?$", re.I)
    DIRECTIVE = re.compile(r"(?:^|\s)#\s*(SKIP|XFAIL|TODO)\b:?\s*(.*)$", re.I)
    # The guest announces each KUnit suite before it prints the suite's results.
    ANNOUNCED = re.compile(r"^# suite (\S+)$")

    def __init__(self, lines):
        self.results = []      # (name, "pass" | "fail" | "skip", reason)
        self.problems = []
        self.plans = 0
        self.scopes = {}       # indentation -> [plan or None, results seen, failed, title]
        self.said = []         # what a test said of its failure
        self.announced = None  # (KUnit suite, results before it)
        for line in lines:
            self.line(line.replace("\t", "    "))
        self.close(0)
        self.announce(None)

    def scope(self, depth):
        return self.scopes.setdefault(depth, [None, 0, 0, ""])

    def name(self, depth, text):
        titles = [self.scopes[d][3] for d in sorted(self.scopes) if d <= depth]
        return ".".join([t for t in titles if t] + [text])

    def announce(self, suite):
        """The announced KUnit suite ends, and another one begins."""
        if self.announced and len(self.results) == self.announced[1]:
            self.problems.append(f"KUnit suite {self.announced[0]}: no results")
        self.announced = (suite, len(self.results)) if suite else None

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
        plan, result = self.PLAN.match(line), self.LINE.match(line)
        stripped = line.lstrip(" ")
        depth = len(line) - len(stripped)
        if plan:
            self.plan(plan, depth)
        elif self.ANNOUNCED.match(line):
            self.close(0)
            self.announce(self.ANNOUNCED.match(line)[1])
        elif re.match(r"(K?TAP) version \d+", stripped):
            # A document of its own; at depth 0 the one before it has ended.
            if depth == 0:
                self.close(0)
        elif stripped.startswith("# Subtest: "):
            self.scope(depth)[3] = stripped[11:].strip()
        elif result:
            self.result(result, depth)
        elif re.search(r"\bExpected\b|EXPECTATION|ASSERTION|time ?out", stripped, re.I):
            self.said.append(stripped.lstrip("# ").strip())

    def plan(self, m, depth):
        self.scope(depth)[0] = int(m[2])
        self.plans += depth == 0
        if m[3] is not None and m[2] == "0":
            self.results.append(("(all)", "skip", m[3]))
            self.scopes.pop(depth)

    def outcome(self, m):
        """(text, kind, reason) of a result line."""
        text, kind = m[4].strip(), "fail" if m[2] == "not ok" else "pass"
        reason = "; ".join(self.said[:2]) if kind == "fail" else ""
        d = self.DIRECTIVE.search(text)
        if d:
            word, reason = d[1].upper(), d[2].strip()
            text = text[:d.start()].strip()
            # "ok 2 # SKIP name": what kselftest.h prints when it names nothing else
            text = text or reason
            if word != "SKIP":
                kind, reason = "skip", f"{word.lower()}: {reason}"
            elif kind == "pass":
                kind = "skip"
        return text, kind, reason

    def result(self, m, depth):
        text, kind, reason = self.outcome(m)
        self.said = []
        here = self.scope(depth)
        here[1] += 1
        here[2] += kind == "fail"
        if any(d > depth for d in self.scopes):
            seen, failed = self.close(depth + 1)
            if seen:
                # Failures below are already counted.
                if kind == "fail" and not failed:
                    self.results.append((self.name(depth, text), "fail", "failed although no subtest did"))
                return
        self.results.append((self.name(depth, text), kind, reason))

    def count(self, kind):
        return sum(1 for r in self.results if r[1] == kind)

    def by_name(self):
        """{name: outcome}; a name that comes again is numbered."""
        out = {}
        for name, kind, _ in self.results:
            n, key = 1, name
            while key in out:
                n += 1
                key = f"{name} ({n})"
            out[key] = kind
        return out
