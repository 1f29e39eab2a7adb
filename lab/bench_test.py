#!/usr/bin/env python3
"""Does the bench notice what it has to notice? No guest is started."""
import os
import tempfile
import unittest

import bench_plan as plan
import bench_report as report

ROW = {"path": "ours-pinned", "backend": "vtd-strict", "memory": "thp", "bytes": plan.RECORD, "runs": 8,
       "map_insn_per_page": 1.5, "unmap_insn_per_page": 0.61, "dirty_insn_per_page": -0.01}
LINE = ('{"path": "ib_umem", "memory": "thp", "bytes": 8192, "runs": 1, "map_ns": 10, "unmap_ns": 4, '
        '"dirty_ns": null, "links": 1, "syncs": 1, "flushes": 1, "metadata": 128, "scratch": null}')


class Plan(unittest.TestCase):
    def test_rows_are_planned_once(self):
        rows = [r for g in plan.guests() for r in g.expected]
        self.assertEqual(len(rows), len(set(rows)))

    def test_command_line_fits(self):
        """The kernel takes 2048 bytes, and a guest has other words on it too."""
        for g in plan.guests():
            self.assertLess(len(g.filter), 1400, g.name)

    def test_every_backend_has_the_whole_matrix(self):
        rows = {r for g in plan.guests() for r in g.expected}
        for backend in plan.BACKENDS:
            for memory in plan.MEMORY:
                for path in plan.OURS + plan.PEERS:
                    self.assertIn((path, backend, memory, plan.RECORD), rows)

    def test_what_must_be_reached_is_measured(self):
        rows = {r for g in plan.guests() for r in g.expected}
        for path, memory, backend in report.MUST:
            self.assertIn((path, backend, memory, plan.RECORD), rows)


class Results(unittest.TestCase):
    def test_per_page(self):
        key = ("ib_umem", "amd", "thp", 8192)
        r = report.results({key: report.json.loads(LINE)}, {})[0]
        self.assertEqual((r["map_insn_per_page"], r["unmap_insn_per_page"], r["dirty_insn_per_page"]), (5, 2, None))
        self.assertEqual((r["metadata_bytes_per_page"], r["scratch_bytes"]), (64, None))

    def test_a_broken_line_is_no_row(self):
        with tempfile.NamedTemporaryFile("w", suffix=".log") as f:
            f.write(f"|{LINE}\n|{LINE[:40]}\n|TAP version 13\n@lab {{\n{LINE}\n")
            f.flush()
            self.assertEqual(len(report.read_lines(f.name)), 1)


class Record(unittest.TestCase):
    def setUp(self):
        self.tree = tempfile.TemporaryDirectory()
        self.addCleanup(self.tree.cleanup)
        os.makedirs(os.path.join(self.tree.name, os.path.dirname(report.DOC)))
        self.write(f"Text\n\n{report.BEGIN}\n\n{report.END}\n")

    def write(self, text):
        with open(os.path.join(self.tree.name, report.DOC), "w", encoding="utf-8") as f:
            f.write(text)

    def worse(self, **change):
        return report.check([dict(ROW, **change)], self.tree.name)

    def test_round_trip(self):
        self.assertEqual(report.write_record([ROW], self.tree.name), 1)
        self.assertEqual(report.record(self.tree.name),
                         {("ours-pinned", "thp", "vtd-strict", plan.RECORD): (1.5, 0.61, -0.01)})
        self.assertEqual(self.worse(), [])

    def test_worse_is_noticed(self):
        report.write_record([ROW], self.tree.name)
        self.assertEqual(self.worse(map_insn_per_page=1.52), [])
        self.assertEqual(len(self.worse(map_insn_per_page=1.56)), 1)
        self.assertEqual(len(self.worse(unmap_insn_per_page=0.65)), 1)
        self.assertEqual(self.worse(map_insn_per_page=1.0), [])

    def test_missing_is_worse(self):
        report.write_record([ROW], self.tree.name)
        self.assertEqual(len(report.check([], self.tree.name)), 3)

    def test_no_place_for_the_record(self):
        self.write("Text\n")
        with self.assertRaises(SystemExit):
            report.write_record([ROW], self.tree.name)


if __name__ == "__main__":
    unittest.main()
