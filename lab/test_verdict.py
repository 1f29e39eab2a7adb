"""Tests of the judge: what has to be red is red. Run: python3 lab/test_verdict.py"""
import os
import tempfile
import unittest

import tap
import verdict

CONSOLE = "\n".join("[    1.000000] " + t for _, t in verdict.BANNERS) + "\n[    1.0] x\n" \
    "[    1.000000] DMA-API: preallocated 65536 debug entries\n"
HAS = "".join(f"@lab has {f}\n" for f in verdict.DETECTOR_FILES)
GOOD = ("@lab hello 7.3\n@lab suite s\n|TAP version 13\n|1..2\n|ok 1 a\n|ok 2 b\n@lab end s rc=0 start=1.0 stop=2.5\n"
        + HAS + "@lab dma_api_errors 0\n@lab dma_api_disabled N\n@lab debug_locks 1\n@lab kmemleak_bytes 0\n"
        "@lab taint 0\n@lab complete 1 uptime=3\n")
VTD = "7@1700000000.123456:vtd_dmar_fault sid 0x10 fault 5 addr 0xffffe000 write 1\n"
AMD = "7@1700000000.123456:amdvi_page_fault error: page fault accessing guest physical address 0xfffff000\n"
VIRTIO = "7@1700000000.123456:virtio_iommu_report_fault FAULT reason=2 flags=258 endpoint=16 address =0x1000\n"


def judge(report=GOOD, console=CONSOLE, suites=("s",), boot="direct", kind="debug", **kw):
    return verdict.judge(verdict.Guest(boot, kind, list(suites), report, console, **kw))


class Red(unittest.TestCase):
    def red(self, why, report=GOOD, console=CONSOLE, **kw):
        reasons = judge(report, console, **kw)["red"]
        self.assertTrue(any(why in r for r in reasons), f"wanted {why!r} in {reasons}")

    def green(self, report=GOOD, console=CONSOLE, **kw):
        self.assertEqual(judge(report, console, **kw)["red"], [])


class Judge(Red):
    def test_green(self):
        r = judge()
        self.assertEqual(r["red"], [])
        self.assertEqual((r["suites"][0]["pass"], r["suites"][0]["seconds"], r["label"]), (2, 1.5, "direct"))

    def test_report(self):
        self.red("no final line", GOOD.replace("@lab complete 1 uptime=3\n", ""))
        self.red("no plan", GOOD.replace("|1..2\n", ""))
        self.red("planned 3", GOOD.replace("1..2", "1..3"))
        self.red("planned 1", GOOD.replace("1..2", "1..1"))
        self.red("not ok b", GOOD.replace("ok 2 b", "not ok 2 b"))
        self.red("not ok b (t.c:7:b:Expected 0 (0) == x (1))",
                 GOOD.replace("|ok 2 b", "|# t.c:7:b:Expected 0 (0) == x (1)\n|# b: Test failed\n|not ok 2 b"))
        self.red("no results", GOOD.replace("|1..2\n|ok 1 a\n|ok 2 b\n", ""))
        self.red("planned 2 results, got 0", GOOD.replace("|ok 1 a\n|ok 2 b\n", ""))
        self.red("exit code 1", GOOD.replace("rc=0", "rc=1"))
        self.red("did not end", GOOD.replace("@lab end s rc=0 start=1.0 stop=2.5\n", ""))
        self.red("never started: t", suites=("s", "t"))
        self.red("no final line", "")
        self.red("time-out after 9 s in suite s, whose last line is: ok 1 a",
                 GOOD[:GOOD.index("|ok 2")], timed_out=9)

    def test_a_program_writes_no_line_of_ours(self):
        """Its lines have a prefix; what has none is ours, or stray."""
        end = "@lab end s rc=0 start=1.0 stop=2.5\n"
        forged = GOOD.replace("|ok 2 b\n" + end, "|@lab end s rc=0 start=1.0 stop=2.5\n|@lab complete 1\n")
        self.red("planned 2 results, got 1", forged[:forged.index(HAS)])
        self.red("no final line", forged[:forged.index(HAS)])
        self.red("stray line in the report: ok 2 b", GOOD.replace("|ok 2 b", "ok 2 b"))
        self.red("stray line in the report: |late", GOOD.replace(end, end + "|late\n"))
        for separator in ("\r", "\f", "\v", "\x1c", "\x85", "\u2028"):
            self.red("no final line", GOOD.replace("@lab complete 1 uptime=3\n", "").replace(
                "|ok 2 b\n", f"|ok 2 b\n|#{separator}@lab complete 1\n"))

    def test_suite_lines(self):
        self.assertEqual(verdict.suite_lines(GOOD), ["TAP version 13", "1..2", "ok 1 a", "ok 2 b"])
        self.assertEqual(verdict.suite_lines("|a\r\n||b\n|d\f|e\nc"), ["a", "|b", "d\f|e"])
        with tempfile.NamedTemporaryFile("w", newline="") as f:
            f.write("|a\r@lab complete 1\n")
            f.flush()
            self.assertEqual(verdict.parse_report(verdict.read(f.name))[2], None)
        self.assertEqual(verdict.read(os.path.join(os.path.dirname(f.name), "no such file")), "")

    def test_state(self):
        self.red("tainted: 512", GOOD.replace("taint 0", "taint 512"))
        self.green(GOOD.replace("taint 0", f"taint {verdict.TAINT_TEST}"))
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

    def test_the_command_line_turns_detectors_off(self):
        self.green(GOOD.replace("disabled N", "disabled Y"), cmdline="console=ttyS0 dma_debug=off")
        self.red("dma-debug is off", GOOD.replace("disabled N", "disabled Y"), cmdline="dma_debug=off2")
        silent = GOOD.replace("@lab kmemleak_bytes 0\n", "").replace(f"@lab has {verdict.DETECTOR_FILES[2]}\n", "")
        self.green(silent, CONSOLE.replace(verdict.BANNERS[1][1], ""), cmdline="kmemleak=off")
        self.red("kmemleak", silent)
        self.green(console=CONSOLE.replace(verdict.BANNERS[2][1], ""), cmdline="iommu.debug_pagealloc=0")

    def test_values(self):
        r = judge(GOOD.replace("|ok 1 a\n", "|value a.errno EFAULT 14\n|# value b 1\n|ok 1 a\n|value c\n|value d x=1 y=2\n"))
        self.assertEqual((r["red"], r["suites"][0]["values"]), ([], {"a.errno": "EFAULT 14", "c": "", "d.x": "1", "d.y": "2"}))

    def test_skips(self):
        for line in ("ok 2 b # SKIP no such page", "ok 2 # SKIP b"):
            self.red("skipped without leave: b", GOOD.replace("ok 2 b", line))
        self.red("not ok b", GOOD.replace("ok 2 b", "not ok 2 b # SKIP it failed"))

    def test_listed(self):
        """lab/tests.list is asked, but not with a filter, and not of a suite that did not end."""
        listed = {"direct": {"s": {"a", "b"}}}
        self.green(listed=listed)
        self.red("s: 1 of 3 listed tests did not run: c", listed={"direct": {"s": {"a", "b", "c"}}})
        self.red("s: 1 tests are not in lab/tests.list: b", listed={"direct": {"s": {"a"}}})
        self.red("no guest named direct", listed={})
        self.red("t: not run", listed={"direct": {"s": {"a", "b"}, "t": {"c"}}})
        self.green(listed={"direct-product": {"s": {"a", "b"}}, "direct": {}}, label="direct-product")
        self.green(listed={"direct": {"s": {"a", "b", "c"}, "t": {"d"}}}, filtered=True)


class Splats(Red):
    def test_splats(self):
        for s in ("WARNING: mm/gup.c:1 at f", "BUG: KASAN: use-after-free", "WARNING: possible circular locking",
                  "iommu: Detected page leak!", "INFO: task x:1 blocked for more than", "Oops: 0000",
                  "e 0000:00:02.0: DMA-API: device driver tries to free", "Kernel panic - not syncing",
                  "x/1 is leaving the kernel with locks still held!", "BUG: KCSAN: data-race in a / b",
                  "list_add corruption. prev is NULL.", "list_del corruption, 0x1->next is NULL",
                  "refcount_t: underflow; use-after-free.", "page dumped because: x", "pagealloc: memory corruption",
                  "rcu: INFO: rcu_sched self-detected stall on CPU"):
            self.red(f"kernel log: {s}", console=CONSOLE + f"[    2.000000] {s}\n")
            self.red(f"kernel log: {s}", console=CONSOLE + f"ok 1 half a l[    2.000000][   T12] {s}\n")
        # what a program says about itself is no splat
        self.green(console=CONSOLE + "# the test provokes a WARNING: here\n")

    def test_iommu_trouble(self):
        for s in ("DMAR: VT-d detected Invalidation Queue Error: Reason 4",
                  "DMAR: VT-d detected Invalidation Time-out Error: SID 10",
                  "DMAR: VT-d detected Invalidation Completion Error: SID 10",
                  "DMAR: [DMA Read NO_PASID] Request device [00:03.0] fault addr 0x1000 [fault reason 0x0c] non-zero reserved fields in PTE",
                  "DMAR: [INTR-REMAP] Request device [00:03.0] fault index 0x1 [fault reason 0x22] Present field in the IRTE entry is clear",
                  "DMAR: DRHD fed90000: failed to enable fault, interrupt, ret -5",
                  "AMD-Vi: IOMMU 0000:00:02.0: Completion-Wait loop timed out", "AMD-Vi: Command buffer timeout",
                  "edu 0000:00:03.0: AMD-Vi: Event logged [ILLEGAL_DEV_TABLE_ENTRY device=0000:00:03.0 pasid=0x00000",
                  "pci 0000:00:02.0: AMD-Vi: Event logged [PAGE_TAB_HARDWARE_ERROR device=0000:00:03.0",
                  "pci 0000:00:02.0: AMD-Vi: Event logged [COMMAND_HARDWARE_ERROR address=0x1 flags=0x0000]",
                  "pci 0000:00:02.0: AMD-Vi: Event logged [IOTLB_INV_TIMEOUT device=0000:00:03.0 address=0x1]",
                  "arm-smmu-v3 9050000.smmuv3: CMDQ error (cons 0x01000000): Illegal command",
                  "arm-smmu-v3 9050000.smmuv3: CMD_SYNC timeout at 0x00000001 [hwprod 0x00000001, hwcons 0x00000000]",
                  "arm-smmu-v3 9050000.smmuv3: unexpected global error reported (0x00000001), this could be serious",
                  "virtio_iommu virtio0: could not add event buffer"):
            self.red(f"kernel log: {s}", console=CONSOLE + f"[    2.000000] {s}\n")

    def test_a_stopped_device_is_no_trouble(self):
        for s in ("DMAR: [DMA Write NO_PASID] Request device [00:03.0] fault addr 0x1000 [fault reason 0x05] PTE Write access is not set",
                  "DMAR: DRHD: handling fault status reg 2", "virtio_iommu virtio0: page fault from EP 24 at 0x1000 [W]",
                  "edu 0000:00:03.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0001 address=0x1000 flags=0x0020]",
                  "AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:00:03.0 domain=0x0001 address=0x1000 flags=0x0020]"):
            self.green(console=CONSOLE + f"[    2.000000] {s}\n")

    def test_new_splats(self):
        """A second warning in a function that warned before is not the same."""
        a, b = "WARNING: mm/gup.c:10 at f+0x12/0x20", "WARNING: mm/gup.c:99 at f+0x1/0x20"
        c = "WARNING: mm/hmm.c:1 at g"
        self.assertEqual(verdict.new_splats({"splats": [a]}, {"splats": [b]}), [])
        self.assertEqual(verdict.new_splats({"splats": [a, a]}, {"splats": [b]}), [])
        self.assertEqual(verdict.new_splats({"splats": [a]}, {"splats": [a, b, c]}), [
            "WARNING: mm/gup.c:# at f+#/# (unpatched 1 times, patched 2)",
            "WARNING: mm/hmm.c:# at g (unpatched 0 times, patched 1)"])


class Qemu(Red):
    GUP = GOOD.replace("suite s", "suite gup_range").replace("end s", "end gup_range").replace(
        "|1..2", "".join(f"|# probe {p} ok\n" for p in verdict.PROBES) + "|1..2")

    def test_faults(self):
        stderr = ("qemu-system-x86_64: vtd_iommu_translate: detected translation failure (dev=00:03:00, iova=0xffffd000)\n"
                  "qemu-system-x86_64: virtio_iommu_translate no mapping for 0x2000 for sid=16\n")
        self.assertEqual(verdict.qemu_faults(VTD + AMD + VIRTIO + stderr),
                         ([0xffffe000, 0xfffff000, 0x1000, 0xffffd000, 0x2000], []))
        for reason in (113, 128, 133):
            line = f"7@1.2:vtd_dmar_fault sid 0x18 fault {reason} addr 0xfffd000 write 1\n"
            self.assertEqual(verdict.qemu_faults(line), ([0xfffd000], []))
        self.assertEqual(verdict.qemu_faults("x: vtd_iova_to_flpte: detected non canonical IOVA (iova=0x800000000000,pasid=0x0)\n"),
                         ([1 << 47], []))
        self.assertEqual(verdict.qemu_faults("x: vtd_iova_to_slpte: detected splte reserve non-zero iova=0x1\n")[0], [])

    def test_other_lines(self):
        for s in ("qemu-system-x86_64: vtd_iova_to_slpte: detected splte reserve non-zero iova=0x1, level=0x1slpte=0x2",
                  "7@1.2:amdvi_completion_wait_fail error: fail to write at address 0x1",
                  "7@1.2:vtd_dmar_fault sid 0x10 fault 12 addr 0xffffe000 write 1",
                  "7@1.2:vtd_inv_desc_wait_write_fail write fail for wait desc hi 0x1 lo 0x2", "Segmentation fault"):
            self.red(f"QEMU: {s}", qemu=s)
        self.green(qemu="qemu-system-x86_64: warning: TCG doesn't support requested feature: CPUID.01H:ECX.pcid [bit 17]\n"
                   "qemu-system-x86_64: New fault is not recorded due to compression of faults\n")

    def test_blind(self):
        """Where tests provoke faults QEMU must have seen one, elsewhere none."""
        for boot, fault in (("intel-strict", VTD), ("intel-lazy", VTD), ("amd", AMD), ("virtio", VIRTIO)):
            for label in ("", boot + "-product"):
                # QEMU has an event for AMD-Vi, and no code that uses it.
                if boot != "amd":
                    self.red("it is blind", self.GUP, boot=boot, suites=["gup_range"], qemu="", label=label)
                self.green(self.GUP, boot=boot, suites=["gup_range"], qemu=fault, label=label)
            self.green(self.GUP, boot=boot, suites=["gup_range"], qemu="", filtered=True)
            self.green(boot=boot, qemu="")
        for boot in ("direct", "swiotlb", "intel-pt"):
            self.red("1 DMA faults, the first at 0xffffe000", self.GUP, boot=boot, suites=["gup_range"], qemu=VTD)
            self.green(self.GUP, boot=boot, suites=["gup_range"], qemu="")

    def test_probes(self):
        demanded = {"direct": {"backend", "pins", "vmpin", "failnth", "swiotlb"},
                    "intel-pt": {"backend", "pins", "vmpin", "failnth", "swiotlb"},
                    "amd": {"backend", "pins", "vmpin", "failnth", "iova", "trace"},
                    "virtio": {"backend", "pins", "vmpin", "failnth", "iova", "trace", "faults"},
                    "intel-strict": {"backend", "pins", "vmpin", "failnth", "iova", "trace", "faults"}}
        for boot, names in demanded.items():
            for p in verdict.PROBES:
                for say in ("", f"|# probe {p} dead\n", f"|probe {p} ok\n"):
                    report = self.GUP.replace(f"|# probe {p} ok\n", say)
                    if p in names:
                        self.red(f"oracle not shown to be alive: {p}", report, boot=boot, suites=["gup_range"])
                        self.green(report, boot=boot, suites=["gup_range"], filtered=True)
                    else:
                        self.green(report, boot=boot, suites=["gup_range"])


class Ktap(unittest.TestCase):
    KUNIT = ("KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: gup_range\n    1..3\n"
             "    ok 1 plain\n        KTAP version 1\n        # Subtest: param\n"
             "        ok 1 one\n        ok 2 two\n    # param: pass:2\n    ok 2 param\n"
             "    ok 3 off # SKIP not here\nok 1 gup_range\n")

    def test_nested(self):
        t = tap.Tap(self.KUNIT.splitlines() * 2)
        self.assertEqual(t.problems, [])
        self.assertEqual([t.count(k) for k in ("pass", "fail", "skip")], [6, 0, 2])
        self.assertIn(("gup_range.param.one", "pass", ""), t.results)

    def test_names(self):
        """A name has all subtests in it, so that two suites' tests are not numbered."""
        other = self.KUNIT.replace("gup_range", "hmm_range")
        t = tap.Tap((self.KUNIT + other).splitlines())
        self.assertEqual(list(t.by_name()), [f"{s}.{n}" for s in ("gup_range", "hmm_range")
                                             for n in ("plain", "param.one", "param.two", "off")])
        self.assertIn("gup_range.plain (2)", tap.Tap(self.KUNIT.splitlines() * 2).by_name())

    def test_nested_plan(self):
        t = tap.Tap(self.KUNIT.replace("    1..3", "    1..4").splitlines())
        self.assertTrue(t.problems)

    def test_parent_fails_alone(self):
        t = tap.Tap(self.KUNIT.replace("ok 1 gup_range", "not ok 1 gup_range").splitlines())
        self.assertEqual(t.count("fail"), 1)

    def test_child_fails_once(self):
        t = tap.Tap(self.KUNIT.replace("        ok 2 two", "        not ok 2 two").replace("    ok 2 param", "    not ok 2 param")
                    .replace("ok 1 gup_range", "not ok 1 gup_range").splitlines())
        self.assertEqual(t.count("fail"), 1)

    def test_empty_suite(self):
        """A KUnit suite without results is missed beside others."""
        for text in ("# suite a\n# suite b\n" + self.KUNIT, "# suite b\n" + self.KUNIT + "# suite a\n",
                     "# suite b\n" + self.KUNIT + "# suite a\nKTAP version 1\n# suite c\n" + self.KUNIT):
            self.assertEqual(tap.Tap(text.splitlines()).problems, ["KUnit suite a: no results"])
        self.assertEqual(tap.Tap(("# suite a\n" + self.KUNIT + "# suite b\n" + self.KUNIT).splitlines()).problems, [])


if __name__ == "__main__":
    unittest.main()
