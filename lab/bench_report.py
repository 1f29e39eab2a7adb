"""From the guests' lines to results.json, the table, the plots and the figures of record."""
import json
import os
import re
import subprocess

import bench_plan as plan
import verdict

PAGE = 4096
DOC = "Documentation/core-api/gup_range_bench.rst"       # in the kernel tree
BEGIN, END = ".. figures of record", ".. end of the figures"
WORSE = 1.02

# What must be reached at 16 MiB, instructions per page:
# path, memory, backend: map, unmap.
MUST = {
    ("ours-pinned", "4k-scattered", "vtd-strict"): (190, 130),
    ("ours-pinned", "4k-scattered", "amd"): (190, 130),
    ("ours-pinned", "thp", "vtd-strict"): (2, 0.8),
    ("ours-pinned", "thp", "amd"): (2, 0.8),
    ("ours-mirrored", "4k-scattered", "vtd-strict"): (150, 22),
    ("ours-mirrored", "4k-scattered", "amd"): (150, 30),
    ("ours-mirrored", "thp", "vtd-strict"): (36, None),
    ("ours-mirrored", "thp", "amd"): (36, None),
    ("ours-pinned", "4k-scattered", "passthrough"): (200, 130),
    ("ours-mirrored", "4k-scattered", "passthrough"): (125, 5),
}
SCRATCH = 64 << 10
PER_RUN = 8


def read_lines(path):
    """The lines of JSON in a guest's report."""
    out = []
    for line in verdict.suite_lines(verdict.read(path)):
        if line.startswith("{"):
            try:
                out.append(json.loads(line))
            except ValueError:
                pass        # its row is then missing
    return out


def size_text(n):
    for unit, letter in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if n % unit == 0:
            return f"{n // unit} {letter}"
    return f"{n} B"


def line_text(line):
    """One measurement for people; other lines as they are."""
    if not line.startswith("{"):
        return line
    r = json.loads(line)
    n = r["bytes"] // PAGE
    ns = [number(None if r[k] is None else r[k] / n) for k in ("map_ns", "unmap_ns", "dirty_ns")]
    return (f"{r['path']:20} {r['memory']:12} {size_text(r['bytes']):>8} {r['runs']:7} runs  map {ns[0]:>8} "
            f"unmap {ns[1]:>8} dirty {ns[2]:>7} a page  links {dash(r['links'])} syncs {dash(r['syncs'])} "
            f"flushes {dash(r['flushes'])} metadata {dash(r['metadata'])} scratch {dash(r['scratch'])}")


def dash(x):
    return "-" if x is None else str(x)


def number(x):
    """Three digits are enough, and 2 % can be seen."""
    if x is None:
        return "-"
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


def results(rows, wall):
    """rows: {(path, backend, memory, bytes): a guest's line}; the array of results.json."""
    out = []
    for key, line in rows.items():
        path, backend, memory, size = key
        pages = size / PAGE

        def per_page(name, of=line, pages=pages):
            return None if of[name] is None else round(of[name] / pages, 4)

        r = {"path": path, "backend": backend, "memory": memory, "bytes": size, "runs": line["runs"],
             "map_insn_per_page": per_page("map_ns"), "unmap_insn_per_page": per_page("unmap_ns"),
             "dirty_insn_per_page": per_page("dirty_ns"), "map_insn": line["map_ns"],
             "unmap_insn": line["unmap_ns"], "flushes": line["flushes"], "syncs": line["syncs"],
             "links": line["links"], "metadata_bytes_per_page": per_page("metadata"),
             "metadata_bytes": line["metadata"], "scratch_bytes": line["scratch"]}
        if key in wall:
            r["map_wall_ns_per_page"] = per_page("map_ns", wall[key])
            r["unmap_wall_ns_per_page"] = per_page("unmap_ns", wall[key])
        out.append(r)
    return out


def index(res):
    return {(r["path"], r["backend"], r["memory"], r["bytes"]): r for r in res}


# ------------------------------------------------------------------------ table

def cell(*values):
    return " / ".join(map(number, values))


def markdown(head, body):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body]) + "\n"


def matrix(ix, backend, columns):
    """Map / unmap of every path by `columns` of (memory, bytes)."""
    body = []
    for path in plan.OURS + plan.RDMA + plan.PEERS + plan.ENGINE_PATHS + plan.PARTS + plan.PARTS_IOMMU:
        got = [ix.get((path, backend, m, n)) for m, n in columns]
        if any(got):
            body.append([path] + [cell(r["map_insn_per_page"], r["unmap_insn_per_page"]) if r else "" for r in got])
    return body


def table_matrix(ix):
    out = []
    for backend in plan.BACKENDS:
        columns = [(m, plan.RECORD) for m in plan.MEMORY]
        out.append(f"### {backend}, {size_text(plan.RECORD)}: map / unmap\n\n"
                   + markdown(["path"] + [m for m, _ in columns], matrix(ix, backend, columns)))
    return out


def table_sizes(ix):
    out = []
    for backend in plan.SWEPT:
        for memory in ("4k-scattered", "thp"):
            sizes = sorted(n for m, n in plan.specs(backend) if m == memory)
            out.append(f"### {backend}, {memory}, by size: map / unmap\n\n"
                       + markdown(["path"] + [size_text(n) for n in sizes],
                                  matrix(ix, backend, [(memory, n) for n in sizes])))
        columns = [("hugetlb-1g", 1 << 30)]
        out.append(f"### {backend}, a gigabyte in one page: map / unmap\n\n"
                   + markdown(["path", "1 GiB"], matrix(ix, backend, columns)))
    return out


def table_counts(ix):
    """What else an operation costs: calls, memory, dirtying."""
    out = []
    for backend in plan.SWEPT:
        for memory in ("4k-scattered", "thp"):
            body = []
            for path in plan.OURS + plan.RDMA + plan.PEERS:
                r = ix[path, backend, memory, plan.RECORD]
                body.append([path, dash(r["links"]), dash(r["syncs"]), dash(r["flushes"]),
                             number(r["dirty_insn_per_page"]), number(r["metadata_bytes_per_page"]),
                             dash(r["scratch_bytes"])])
            out.append(f"### {backend}, {memory}, {size_text(plan.RECORD)}\n\n" + markdown(
                ["path", "links", "syncs", "flushes", "dirty a page", "metadata bytes a page", "scratch bytes"], body))
    return out


def table_latency(ix):
    body = []
    for backend in plan.BACKENDS:
        for path, of in (("ours", "ours-mirrored"), ("rdma", "rdma-odp"), ("odp", "odp")):
            row = [backend, of]
            for memory in ("4k-scattered", "thp"):
                fault, inv = (ix[p, backend, memory, plan.RECORD] for p in plan.latency(path, memory))
                whole = ix[of, backend, memory, plan.RECORD]
                row += [str(fault["map_insn"]), str(inv["unmap_insn"]), str(whole["unmap_insn"])]
            body.append(row)
    return markdown(["backend", "path", "fault 4 KiB", "invalidate 4 KiB", "invalidate 16 MiB of 4k-scattered",
                     "fault 2 MiB", "invalidate 2 MiB", "invalidate 16 MiB of thp"], body)


def table_rdma(ix):
    """What the conversion of the RDMA core changed: map / unmap before, after, how many times cheaper."""
    out = []
    for after, before in (("rdma-umem", "ib_umem"), ("rdma-odp", "odp")):
        body = []
        for backend in plan.BACKENDS:
            for memory in plan.MEMORY:
                a, b = (ix[p, backend, memory, plan.RECORD] for p in (after, before))
                names = ("map_insn_per_page", "unmap_insn_per_page")
                body.append([backend, memory, cell(*(b[n] for n in names)), cell(*(a[n] for n in names)),
                             cell(*(b[n] / a[n] for n in names)), f"{dash(b['flushes'])} / {dash(a['flushes'])}"])
        out.append(f"### {before} before, {after} after, {size_text(plan.RECORD)}\n\n" + markdown(
            ["backend", "memory", "before", "after", "times", "flushes before / after"], body))
    return out


def table_ioctl(ix):
    body = []
    for backend in plan.BACKENDS:
        for path in ("ours-pinned-ioctl", "ours-mirrored-ioctl") + plan.ENGINE_PATHS:
            r = ix.get((path, backend, "4k-scattered", PAGE))
            if r:
                body.append([backend, path, str(r["map_insn"]), str(r["unmap_insn"])])
    return markdown(["backend", "path", "map", "unmap"], body)


# ----------------------------------------------------------------------- claims

def claim(what, expected, seen, ok):
    return {"what": what, "expected": expected, "seen": seen, "ok": ok}


def claims_must(ix):
    for (path, memory, backend), must in MUST.items():
        r = ix[path, backend, memory, plan.RECORD]
        for name, limit in zip(("map", "unmap"), must):
            if limit is not None:
                seen = r[f"{name}_insn_per_page"]
                yield claim(f"{path} {name}, {memory}, {backend}", f"≤ {limit}", number(seen), seen <= limit)


def claims_counts(ix):
    for path in plan.OURS:
        for memory in plan.MEMORY:
            for backend in plan.IOMMU:
                r = ix[path, backend, memory, plan.RECORD]
                what = f"{path}, {memory}, {backend}"
                yield claim(what, "1 sync, 1 flush", f"{r['syncs']} and {r['flushes']}",
                            (r["syncs"], r["flushes"]) == (1, 1))
            r = ix[path, "vtd-strict", memory, plan.RECORD]
            what = f"{path}, {memory}, vtd-strict"
            per_run = r["metadata_bytes"] / r["runs"]
            # Small objects that every mapping has do not grow with the runs.
            yield claim(f"{what}: metadata", f"≤ {PER_RUN} bytes a run (and 2 KiB)", f"{number(per_run)} a run",
                        r["metadata_bytes"] <= PER_RUN * r["runs"] + 2048)
            yield claim(f"{what}: scratch", f"≤ {SCRATCH}", dash(r["scratch_bytes"]), r["scratch_bytes"] <= SCRATCH)


def claims_size(ix):
    gib = 1 << 30
    for path in plan.OURS:
        for backend in plan.SWEPT:
            a = ix[path, backend, "4k-scattered", plan.RECORD]["map_insn_per_page"]
            b = ix[path, backend, "4k-scattered", gib]["map_insn_per_page"]
            yield claim(f"{path} map, 1 GiB against 16 MiB, {backend}", "within 5 %", f"{(b / a - 1) * 100:+.1f} %",
                        b <= a * 1.05)
            r = ix[path, backend, "4k-scattered", gib]
            yield claim(f"{path}, scratch of 1 GiB, {backend}", f"≤ {SCRATCH}", dash(r["scratch_bytes"]),
                        r["scratch_bytes"] is not None and r["scratch_bytes"] <= SCRATCH)
            r = ix[path, backend, "hugetlb-1g", gib]
            yield claim(f"{path}, a gigabyte in one page, {backend}", "≤ 20000 in all, map and unmap",
                        f"{r['map_insn']} / {r['unmap_insn']}", max(r["map_insn"], r["unmap_insn"]) <= 20000)


def claims_small(ix):
    """Against peers that flush as often: leaving it to a timer is cheaper, and not the same."""
    def row(path, backend):
        return ix.get((path, backend, "4k-scattered", PAGE))

    def both(r):
        return r["map_insn"] + r["unmap_insn"]

    for backend in plan.BACKENDS:
        for ours, peers in (("ours-pinned", ("ib_umem", "xdp")), ("ours-mirrored", ("odp", "gpusvm")),
                            ("ours-pinned-ioctl", plan.ENGINE_PATHS)):
            mine = row(ours, backend)
            theirs = [row(p, backend) for p in peers]
            theirs = [r for r in theirs if r and (r["flushes"] is None or r["flushes"] >= mine["flushes"])]
            if theirs:
                best = min(theirs, key=both)
                yield claim(f"{ours}, 4 KiB, map and unmap, {backend}", f"≤ {both(best)} ({best['path']})",
                            str(both(mine)), both(mine) <= both(best))


def claims_base(ix):
    for backend in ("vtd-strict", "amd"):
        for memory in ("4k-scattered", "thp"):
            for path in plan.PARTS + plan.PARTS_IOMMU:
                for name in ("map_insn", "unmap_insn"):
                    new = ix[path, backend, memory, plan.RECORD][name]
                    old = ix[path + plan.BASE, backend, memory, plan.RECORD][name]
                    if old:
                        yield claim(f"{path} {name[:-5]}, {memory}, {backend}, against the unpatched kernel",
                                    "≤ +0.5 %", f"{(new / old - 1) * 100:+.2f} %", new <= old * 1.005)


CLAIMS = {
    "The figures to reach at 16 MiB": claims_must,
    "Syncs, flushes and memory": claims_counts,
    "A gigabyte": claims_size,
    "4 KiB is not dearer than a peer": claims_small,
    "Existing callers": claims_base,
}


def table_claims(ix):
    """The first group whole, of the others what does not hold."""
    out = []
    for title, fn in CLAIMS.items():
        c = list(fn(ix))
        text = f"### {title}: {sum(x['ok'] for x in c)} of {len(c)} hold\n"
        show = c if fn is claims_must else [x for x in c if not x["ok"]]
        body = [[x["what"], x["expected"], x["seen"], "yes" if x["ok"] else "**no**"] for x in show]
        out.append(text + ("\n" + markdown(["", "expected", "seen", "holds"], body) if body else ""))
    return out


def table(res):
    ix = index(res)
    return "\n".join([
        "# gup_range: cost\n\nInstructions per 4 KiB page unless it says otherwise.\n",
        "## What must hold\n", *table_claims(ix), "## All paths\n", *table_matrix(ix), "## Sizes\n", *table_sizes(ix),
        "## Calls and memory\n", *table_counts(ix), "## Latency of mirrored pages, instructions in all\n",
        table_latency(ix), "## RDMA regions, before and after\n", *table_rdma(ix), "## 4 KiB through an ioctl, instructions in all\n", table_ioctl(ix)])


# ------------------------------------------------------------------------ plots

def series(res, backend, name, points):
    """{path: [(x, y)]} of what `points` gives an x for."""
    out = {}
    for r in res:
        x = points(r) if r["backend"] == backend else None
        if x and r["path"] in plan.OURS + plan.PEERS + plan.ENGINE_PATHS and r[name] and r[name] > 0:
            out.setdefault(r["path"], []).append((x, r[name]))
    return {p: sorted(out[p]) for p in COLOURS if len(out.get(p, ())) > 1}


def by_size(r):
    return r["bytes"] if r["memory"] == "4k-scattered" else None


def by_run(r):
    """Pages in a run, of memory that consists of runs of one length."""
    fixed = {"4k-scattered": 1, "16k": 4, "64k": 16, "256k": 64, "thp": 512}
    if r["bytes"] == plan.RECORD and r["memory"] in fixed:
        return fixed[r["memory"]]
    return plan.RECORD // PAGE if r["bytes"] == plan.RECORD and r["memory"] == "hugetlb-1g" else None


COLOURS = dict(zip(plan.OURS + plan.PEERS + plan.ENGINE_PATHS,
                   ("#0050c0", "#c00000", "#40a0a0", "#909090", "#e08000", "#a060c0", "#408000", "#c09000")))


def gnuplot(title, xlabel, tick, data, path, kind):
    """One plot; data: {path of the bench: [(x, y)]}, tick: x as text."""
    term = "svg size 900,560 dynamic" if kind == "svg" else "pngcairo size 900,560"
    blocks, curves = [], []
    for n, (name, xy) in enumerate(data.items()):
        blocks.append(f"$d{n} << EOD\n" + "".join(f"{x} {y}\n" for x, y in xy) + "EOD\n")
        width = 3 if name in plan.OURS else 1.5
        curves.append(f"$d{n} using 1:2 with linespoints lw {width} lc rgb '{COLOURS[name]}' title '{name}' noenhanced")
    xs = sorted({x for xy in data.values() for x, _ in xy})
    script = (f"set terminal {term}\nset output '{path}.{kind}'\nset logscale xy\nset grid\n"
              f"set key outside right\nset title '{title}' noenhanced\nset xlabel '{xlabel}'\n"
              "set ylabel 'instructions per 4 KiB page'\n"
              f"set xtics ({', '.join(f'{chr(34)}{tick(x)}{chr(34)} {x}' for x in xs)})\n"
              + "".join(blocks) + "plot " + ", \\\n ".join(curves) + "\n")
    r = subprocess.run(["gnuplot"], input=script, text=True, capture_output=True, check=False)
    if r.returncode or not os.path.getsize(f"{path}.{kind}"):
        raise SystemExit(f"lab/bench: a plot failed\n  expected: {path}.{kind}\n  seen:     {r.stderr.strip()}\n"
                         "  next:     is gnuplot installed? lab/host-packages has its name")


def plots(res, out):
    for backend in plan.SWEPT:
        for name in ("map", "unmap"):
            for what, points, xlabel, tick in (("size", by_size, "bytes", lambda x: size_text(x)[:-2]),
                                               ("runs", by_run, "pages per run", str)):
                data = series(res, backend, f"{name}_insn_per_page", points)
                of = "4k-scattered" if what == "size" else size_text(plan.RECORD)
                for kind in ("svg", "png"):
                    gnuplot(f"{name}, {backend}, {of}", xlabel, tick, data,
                            os.path.join(out, f"{name}-{what}-{backend}"), kind)


# ------------------------------------------------------- the figures of record

RECORD_LINE = re.compile(r"^(\S+) +(\S+) +(\S+) +(\d+) (KiB|MiB|GiB) +(-?[\d.]+|-) +(-?[\d.]+|-) +(-?[\d.]+|-)$")
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
NAMES = ("map_insn_per_page", "unmap_insn_per_page", "dirty_insn_per_page")


def recorded(r):
    """Is this one of the figures that are kept?"""
    if r["path"] in plan.OURS + plan.RDMA:
        return True
    return r["path"] in plan.PEERS + plan.ENGINE_PATHS and r["bytes"] == plan.RECORD


def section(tree):
    with open(os.path.join(tree, DOC), encoding="utf-8") as f:
        text = f.read()
    a, b = text.find(BEGIN), text.find(END)
    if a < 0 or b < a:
        raise SystemExit(f"lab/bench: no figures of record\n  expected: '{BEGIN}' and '{END}' in {DOC}\n"
                         "  seen:     not both\n  next:     put the two comments back, then lab/bench record")
    return text, a + len(BEGIN), b


def record(tree):
    """{(path, memory, backend, bytes): (map, unmap, dirty)}"""
    text, a, b = section(tree)
    out = {}
    for line in text[a:b].splitlines():
        m = RECORD_LINE.match(line)
        if m:
            out[m[1], m[2], m[3], int(m[4]) * UNITS[m[5]]] = tuple(None if v == "-" else float(v) for v in m.groups()[5:])
    return out


def figure(x):
    """With as many digits as 2 % needs."""
    return "-" if x is None else f"{x:.0f}" if abs(x) >= 1000 else f"{x:.4g}" if abs(x) >= 1 else f"{x:.4f}"


def check(res, tree):
    """What is worse than on record, as lines; improvements pass."""
    ix, out = index(res), []
    for (path, memory, backend, size), figures in record(tree).items():
        if path not in plan.OURS + plan.RDMA:
            continue            # the peers are there to compare with
        r = ix.get((path, backend, memory, size))
        for name, was in zip(NAMES, figures):
            now = r and r[name]
            where = f"{path} {memory} {backend} {size_text(size)} {name}"
            # An instruction in 500 pages is not a regression.
            noise = 0.002
            if backend == "virtio" and name.startswith("dirty"):
                # The difference of two unmaps, each of which waits for requests that QEMU handles
                # in a thread of its own.
                noise += figures[1] / 1000
            if was is not None and (now is None or now > was * WORSE + noise):
                out.append(f"bench-check: {where}\n  expected: at most {was * WORSE:.2f} (on record: {was})\n"
                           f"  seen:     {'nothing' if now is None else number(now)}\n"
                           "  next:     find the change that costs; if it is worth it, lab/bench record and say why")
    return out


def write_record(res, tree):
    rows = [r for r in res if recorded(r)]
    order = plan.OURS + plan.RDMA + plan.PEERS + plan.ENGINE_PATHS
    rows.sort(key=lambda r: (list(plan.BACKENDS).index(r["backend"]), r["memory"], r["bytes"], order.index(r["path"])))
    body = [[r["path"], r["memory"], r["backend"], size_text(r["bytes"])] + [figure(r[n]) for n in NAMES]
            for r in rows]
    head = ["path", "memory", "backend", "size", "map", "unmap", "dirty"]
    widths = [max(len(row[i]) for row in body + [head]) for i in range(len(head))]
    bar = "  ".join("=" * w for w in widths)

    def fmt(row):
        return "  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip()

    text, a, b = section(tree)
    new = "\n\n" + "\n".join([bar, fmt(head), bar] + [fmt(r) for r in body] + [bar]) + "\n\n"
    with open(os.path.join(tree, DOC), "w", encoding="utf-8") as f:
        f.write(text[:a] + new + text[b:])
    return len(rows)
