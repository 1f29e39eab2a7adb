"""Tests of the list of tests: what did not run is missed. Run: python3 lab/test_manifest.py"""
import os
import tempfile
import unittest

import manifest

LIST = """# comment

[gup_range] direct direct-product
  held.pinned.a
  input.umem.fs_dax

[gup_range] direct
  [odd] name, with # blanks
"""
LISTED = {"direct": {"gup_range": {"held.pinned.a", "input.umem.fs_dax", "[odd] name, with # blanks"}},
          "direct-product": {"gup_range": {"held.pinned.a", "input.umem.fs_dax"}}}


def result(label, suite="s", rule=None, **tests):
    skips = [{"test": t, "rule": rule} for t, kind in tests.items() if kind == "skip"]
    return {"label": label, "suites": [{"suite": suite, "tests": tests, "skips": skips}]}


class File(unittest.TestCase):
    def setUp(self):
        d = tempfile.TemporaryDirectory()
        self.addCleanup(d.cleanup)
        self.path = os.path.join(d.name, "tests.list")

    def load(self, text):
        with open(self.path, "w", encoding="utf-8") as f:
            f.write(text)
        return manifest.load(self.path)

    def test_load(self):
        self.assertEqual(self.load(LIST), LISTED)

    def test_broken(self):
        for text in ("  a\n", "[s] b\na\n", "[s] b\n  a\n  a\n", "[s]\n  a\n", "[s] b\n  a\n[s] c b\n  a\n"):
            with self.assertRaisesRegex(SystemExit, "record-tests"):
                self.load(text)

    def test_round_trip(self):
        """What is recorded is loaded; each name is there once, under all of its guests."""
        self.load(LIST)
        results = [{"label": k, "suites": [{"suite": s, "tests": dict.fromkeys(n, "pass")} for s, n in v.items()]}
                   for k, v in LISTED.items()]
        manifest.write(results, list(LISTED), self.path)
        self.assertEqual(manifest.load(self.path), LISTED)
        with open(self.path, encoding="utf-8") as f:
            self.assertEqual(f.read().count("held.pinned.a"), 1)

    def test_theirs(self):
        self.load(LIST)
        manifest.write([result("direct", "rdma-pyverbs", b="pass")], ["direct"], self.path)
        self.assertEqual(manifest.load(self.path), {})

    def test_record_some(self):
        """A guest that did not run keeps its lines, one that is no more loses them."""
        self.load(LIST)
        manifest.write([result("direct", "gup_range", b="pass")], ["direct", "direct-product"], self.path)
        self.assertEqual(manifest.load(self.path), {"direct": {"gup_range": {"b"}},
                                                    "direct-product": LISTED["direct-product"]})
        manifest.write([], ["direct-product"], self.path)
        self.assertEqual(list(manifest.load(self.path)), ["direct-product"])

    def test_committed(self):
        manifest.load()


class Problems(unittest.TestCase):
    def problems(self, names, label="direct", suite="s", listed=None):
        return manifest.problems(listed or {"direct": {"s": {f"t{i}" for i in range(8)}}}, label, suite, names)

    def test_same(self):
        self.assertEqual(self.problems([f"t{i}" for i in range(8)]), [])

    def test_missing(self):
        """A TEST_F, a KUnit suite or the rest of a generator's cases is gone."""
        self.assertIn("1 of 8 listed tests did not run: t7;", self.problems([f"t{i}" for i in range(7)])[0])
        self.assertIn("8 of 8 listed tests did not run: t0, t1, t2, t3, t4 and 3 more", self.problems([])[0])

    def test_new(self):
        self.assertIn("1 tests are not in lab/tests.list: u", self.problems([f"t{i}" for i in range(8)] + ["u"])[0])
        self.assertIn("no suite u", self.problems([], suite="u")[0])
        self.assertIn("no guest named amd", self.problems([], label="amd")[0])

    def test_theirs(self):
        """rdma-core 44 has other tests than 56."""
        self.assertEqual(self.problems(["u"], suite="rdma-pyverbs"), [])

    def test_missing_suites(self):
        self.assertEqual(len(manifest.missing_suites(LISTED, "direct", ["kunit"])), 1)
        self.assertEqual(manifest.missing_suites(LISTED, "direct", ["kunit", "gup_range"]), [])

    def test_missing_guests(self):
        """TEST_BOOTS shrinks; a guest that was left out on purpose is not missed."""
        one = [result("direct")]
        self.assertIn("direct-product: no such guest ran", manifest.missing_guests(LISTED, one)[0])
        self.assertEqual(manifest.missing_guests(LISTED, one, ["direct-product"]), [])


class Nowhere(unittest.TestCase):
    LISTED = {"a": {"s": {"x", "y"}}, "b": {"s": {"x"}}}

    def nowhere(self, *results):
        return manifest.nowhere(self.LISTED, list(results))

    def test_somewhere(self):
        self.assertEqual(self.nowhere(result("a", x="skip", y="pass"), result("b", x="pass")), [])

    def test_skipped_everywhere(self):
        self.assertIn("s: x ran on no guest (skipped or absent on a b)",
                      self.nowhere(result("a", x="skip", y="pass"), result("b", x="skip"))[0])
        self.assertIn("s: x ran on no guest", self.nowhere(result("a", x="skip", y="pass"), result("b"))[0])

    def test_left_out(self):
        """Where a guest that lists the test did not run, nothing is known."""
        self.assertEqual(self.nowhere(result("a", x="skip", y="pass")), [])

    def test_meant(self):
        a, b = result("a", x="skip", y="pass", rule="*  s  x  why"), result("b", x="skip", rule="*  s  x  why")
        self.assertEqual(self.nowhere(a, b), [])
        a, b = (result(k, x="skip", y="pass", rule="a,b  s  x  why") for k in "ab")
        self.assertEqual(len(self.nowhere(a, b)), 1)

    def test_formats(self):
        """One format of page tables has to run a test, not each."""
        names = {"amdv1_iommu_test.test_mixed.cfg": "skip", "vtdss_iommu_test.test_mixed.cfg": "pass"}
        listed = {"a": {"iommupt": set(names)}}
        self.assertEqual(manifest.nowhere(listed, [result("a", "iommupt", **names)]), [])
        names["vtdss_iommu_test.test_mixed.cfg"] = "skip"
        self.assertIn("iommupt: test_mixed ran on no guest", manifest.nowhere(listed, [result("a", "iommupt", **names)])[0])


if __name__ == "__main__":
    unittest.main()
