"""Tests of the judge: what has to be red is red. Run: python3 lab/test_verdict.py"""
import unittest

import verdict

CONSOLE = "\n".join("[    1.000000] " + t for _, t in verdict.BANNERS) + "\n[    1.0] x\n" \
    "[    1.000000] DMA-API: preallocated 65536 debug entries\n"
HAS = "".join(f"@lab has {f}\n" for f in verdict.DETECTOR_FILES)
GOOD = ("@lab hello 7.3\n@lab suite s\nTAP version 13\n1..2\nok 1 a\nok 2 b\n@lab end s rc=0 start=1.0 stop=2.5\n"
        + HAS + "@lab dma_api_errors 0\n@lab dma_api_disabled N\n@lab debug_locks 1\n@lab kmemleak_bytes 0\n"
        "@lab taint 0\n@lab complete 1 uptime=3\n")


def judge(report=GOOD, console=CONSOLE, wanted=("s",), **kw):
    return verdict.judge("direct", "debug", list(wanted), report, console, **kw)


class Judge(unittest.TestCase):
    def red(self, why, report=GOOD, console=CONSOLE, **kw):
        reasons = judge(report, console, **kw)["red"]
        self.assertTrue(any(why in r for r in reasons), f"wanted {why!r} in {reasons}")

    def test_green(self):
        r = judge()
        self.assertEqual(r["red"], [])
        self.assertEqual((r["suites"][0]["pass"], r["suites"][0]["seconds"]), (2, 1.5))

    def test_report(self):
        self.red("no final line", GOOD.replace("@lab complete 1 uptime=3\n", ""))
        self.red("no plan", GOOD.replace("1..2\n", ""))
        self.red("planned 3", GOOD.replace("1..2", "1..3"))
        self.red("planned 1", GOOD.replace("1..2", "1..1"))
        self.red("not ok b", GOOD.replace("ok 2 b", "not ok 2 b"))
        self.red("not ok b (t.c:7:b:Expected 0 (0) == x (1))",
                 GOOD.replace("ok 2 b", "# t.c:7:b:Expected 0 (0) == x (1)\n# b: Test failed\nnot ok 2 b"))
        self.red("no results", GOOD.replace("1..2\nok 1 a\nok 2 b\n", ""))
        self.red("planned 2 results, got 0", GOOD.replace("ok 1 a\nok 2 b\n", ""))
        self.red("exit code 1", GOOD.replace("rc=0", "rc=1"))
        self.red("did not end", GOOD.replace("@lab end s rc=0 start=1.0 stop=2.5\n", ""))
        self.red("never started: t", wanted=("s", "t"))
        self.red("no final line", "")
        self.red("time-out after 9 s in suite s, whose last line is: ok 1 a",
                 GOOD[:GOOD.index("ok 2")], timed_out=9)

    def test_state(self):
        self.red("tainted: 512", GOOD.replace("taint 0", "taint 512"))
        self.assertEqual(judge(GOOD.replace("taint 0", f"taint {verdict.TAINT_TEST}"))["red"], [])
        self.red("debug_locks = 0", GOOD.replace("debug_locks 1", "debug_locks 0"))
        self.red("kmemleak: unreferenced", GOOD.replace("kmemleak_bytes 0", "kmemleak_bytes 9")
                 .replace("@lab taint", "leak: unreferenced object 0x1\n@lab taint"))
        self.red("kmemleak is off", GOOD.replace("@lab kmemleak_bytes 0", "@lab kmemleak_dead"))
        self.red("dma-debug counted", GOOD.replace("errors 0", "errors 2"))
        self.red("dma-debug is off", GOOD.replace("disabled N", "disabled Y"))
        for f in verdict.DETECTOR_FILES:
            self.red(f"detector missing: no {f}", GOOD.replace(f"@lab has {f}\n", ""))
        for name, text in verdict.BANNERS:
            self.red(f"detector missing: {name}", console=CONSOLE.replace(text, ""))

    def test_values(self):
        r = judge(GOOD.replace("ok 1 a\n", "value a.errno EFAULT 14\n# value b 1\nok 1 a\nvalue c\nvalue d x=1 y=2\n"))
        self.assertEqual((r["red"], r["suites"][0]["values"]), ([], {"a.errno": "EFAULT 14", "c": "", "d.x": "1", "d.y": "2"}))

    def test_splats(self):
        for s in ("WARNING: mm/gup.c:1 at f", "BUG: KASAN: use-after-free", "WARNING: possible circular locking",
                  "iommu: Detected page leak!", "INFO: task x:1 blocked for more than", "Oops: 0000",
                  "e 0000:00:02.0: DMA-API: device driver tries to free", "Kernel panic - not syncing"):
            self.red(f"kernel log: {s}", console=CONSOLE + f"[    2.000000] {s}\n")
            self.red(f"kernel log: {s}", console=CONSOLE + f"ok 1 half a l[    2.000000][   T12] {s}\n")
        # what a program says about itself is no splat
        self.assertEqual(judge(console=CONSOLE + "# the test provokes a WARNING: here\n")["red"], [])

    def test_skips(self):
        for line in ("ok 2 b # SKIP no such page", "ok 2 # SKIP b"):
            self.red("skipped without leave: b", GOOD.replace("ok 2 b", line))


class Ktap(unittest.TestCase):
    KUNIT = ("KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: gup_range\n    1..3\n"
             "    ok 1 plain\n        KTAP version 1\n        # Subtest: param\n"
             "        ok 1 one\n        ok 2 two\n    # param: pass:2\n    ok 2 param\n"
             "    ok 3 off # SKIP not here\nok 1 gup_range\n")

    def test_nested(self):
        t = verdict.Tap(self.KUNIT.splitlines() * 2)
        self.assertEqual(t.problems, [])
        self.assertEqual([t.count(k) for k in ("pass", "fail", "skip")], [6, 0, 2])
        self.assertIn(("param.one", "pass", ""), t.results)

    def test_nested_plan(self):
        t = verdict.Tap(self.KUNIT.replace("    1..3", "    1..4").splitlines())
        self.assertTrue(t.problems)

    def test_parent_fails_alone(self):
        t = verdict.Tap(self.KUNIT.replace("ok 1 gup_range", "not ok 1 gup_range").splitlines())
        self.assertEqual(t.count("fail"), 1)

    def test_child_fails_once(self):
        t = verdict.Tap(self.KUNIT.replace("        ok 2 two", "        not ok 2 two").replace("    ok 2 param", "    not ok 2 param")
                        .replace("ok 1 gup_range", "not ok 1 gup_range").splitlines())
        self.assertEqual(t.count("fail"), 1)


if __name__ == "__main__":
    unittest.main()
