"""Tests of the lists of exceptions: none allows more than it says. Run: python3 lab/test_allow.py"""
import tempfile
import unittest

import allow
import boots

SKIPS = """
# comment
swiotlb  kunit  hmm_range.*  bounce buffers are forced  why not
!a,b  s  x*  no such memory  why not
*  s  y  not here  why not
"""


def table(text, f):
    with tempfile.NamedTemporaryFile("w", suffix=".allow") as t:
        t.write(text)
        t.flush()
        return f(t.name)


class Table(unittest.TestCase):
    def test_columns(self):
        row = table("a b  c\td's e\n", lambda p: allow.table(p, "one", "two"))[0]
        self.assertEqual(row[:3], ("a b", "c", "d's e"))
        for text in ("a b c\n", "a  b\n", "a  b  c  d\n"):
            with self.assertRaisesRegex(SystemExit, "expected: one, two and an explanation"):
                table(text, lambda p: allow.table(p, "one", "two"))

    def test_committed(self):
        for f in (allow.skip_rules, allow.differs_rules):
            self.assertTrue(f())


class Skips(unittest.TestCase):
    def setUp(self):
        self.rules = table(SKIPS, allow.skip_rules)

    def rule(self, *skip):
        return allow.skip_rule(self.rules, *skip)

    def test_reason(self):
        """A test that skips for another reason is not allowed to."""
        self.assertTrue(self.rule({"swiotlb"}, "kunit", "hmm_range.a", "bounce buffers are forced"))
        self.assertTrue(self.rule({"swiotlb"}, "kunit", "hmm_range.a", "all bounce buffers are forced here"))
        self.assertFalse(self.rule({"swiotlb"}, "kunit", "hmm_range.a", "no memory"))
        self.assertFalse(self.rule({"swiotlb"}, "kunit", "hmm_range.a", ""))
        self.assertFalse(self.rule({"swiotlb"}, "gup_range", "hmm_range.a", "bounce buffers are forced"))
        self.assertFalse(self.rule({"direct"}, "kunit", "hmm_range.a", "bounce buffers are forced"))
        self.assertFalse(self.rule({"swiotlb"}, "kunit", "gup_range.a", "bounce buffers are forced"))

    def test_boots(self):
        for which, names, match in (("*", {"a"}, True), ("a,b", {"b"}, True), ("a,b", {"c"}, False),
                                    ("!a,b", {"b"}, False), ("!a,b", {"c"}, True),
                                    ("a", {"a", "a-product"}, True), ("!a", {"a", "a-product"}, False),
                                    ("a-product", {"a", "a-product"}, True), ("a-product", {"a"}, False),
                                    ("direct", {"direct2"}, False)):
            self.assertEqual(allow.boots_match(which, names), match, (which, names))

    def test_committed(self):
        """Rules name boots that there are."""
        for r in allow.skip_rules():
            for name in r.boots.strip("*!").split(","):
                self.assertIn(name, ["", *boots.BOOTS], r.line)

    def test_unused(self):
        """A rule that no guest needs is red, unless the guest that may need it was left out."""
        def unused(used, left_out=()):
            skips = [{"rule": allow.rule_text(r)} for r in used] + [{"rule": None}]
            return table(SKIPS, lambda p: allow.unused_skips([{"suites": [{"skips": skips}]}], left_out, p))
        self.assertEqual(unused(self.rules), [])
        self.assertEqual([u.split(":")[1] for u in unused(self.rules[:1])], ["4", "5"])
        self.assertIn("skips.allow:3: unused rule: swiotlb  kunit  hmm_range.*", unused(self.rules[1:])[0])
        self.assertEqual(unused(self.rules[1:], [("swiotlb", "swiotlb-product")]), [])
        self.assertEqual(len(unused(self.rules[:1], [("a", "a")])), 1)


class Differs(unittest.TestCase):
    RULES = "rdma-values/rxe0.odp_*.bytes  deadbeef  was wrong\nrdma-verbs/odp_*  pass  was broken\n"

    def setUp(self):
        self.rules = table(self.RULES, allow.differs_rules)

    def test_value(self):
        """The patched kernel has to do what the rule says, not anything."""
        def differs(*a):
            return allow.differs(self.rules, *a)
        self.assertEqual(differs("rdma-values/rxe0.odp_4k.rw.bytes", "1", "deadbeef"), "was wrong")
        self.assertIsNone(differs("rdma-values/rxe0.odp_4k.rw.bytes", "1", "2"))
        self.assertIsNone(differs("rdma-values/rxe0.odp_4k.rw.bytes", "deadbeef", "1"))
        self.assertEqual(differs("rdma-verbs/odp_read", "fail", "pass"), "was broken")
        self.assertIsNone(differs("rdma-verbs/odp_read", "pass", "fail"))
        self.assertIsNone(differs("rdma-verbs/odp_read", "pass", "missing"))
        self.assertIsNone(differs("rdma-verbs/other", "fail", "pass"))

    def test_no_rule_allows_anything(self):
        for r in allow.differs_rules():
            self.assertNotIn("*", r.patched)

    def test_unused(self):
        used = ("rdma-verbs/odp_x", "fail", "pass")
        self.assertEqual(len(allow.unused_differs(self.rules, [used])), 1)
        self.assertEqual(len(allow.unused_differs(self.rules, [("rdma-verbs/odp_x", "pass", "pass")])), 2)
        self.assertEqual(allow.unused_differs(self.rules, iter([used, ("rdma-values/rxe0.odp_.bytes", "0", "deadbeef")])), [])


class Floor(unittest.TestCase):
    FLOORS = "hmm-tests  39  recorded\n"

    def floor(self, name, suite):
        return table(self.FLOORS, lambda p: allow.floor(name, suite, p))

    def test_floor(self):
        """The program fails or skips on both kernels alike, as without CONFIG_TEST_HMM."""
        self.assertEqual(self.floor("hmm-tests", {"pass": 39}), [])
        self.assertIn("38 tests passed, expected at least 39", self.floor("hmm-tests", {"pass": 38})[0])
        self.assertIn("0 tests passed", self.floor("hmm-tests", None)[0])
        self.assertIn("no line in lab/floors", self.floor("other", {"pass": 1})[0])


if __name__ == "__main__":
    unittest.main()
