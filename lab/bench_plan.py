"""What is measured: backends, kinds of memory, sizes, and the rows that must come of it."""
import vm

K, M, G = 1 << 10, 1 << 20, 1 << 30

# The name in the results: the boot in lab/boots.py.
BACKENDS = {
    "vtd-strict": "intel-strict",
    "vtd-lazy": "intel-lazy",
    "amd": "amd",
    "virtio": "virtio",
    "passthrough": "intel-pt",
    "none": "direct",
}
IOMMU = ("vtd-strict", "vtd-lazy", "amd", "virtio")
# The engines make a domain of their own: passthrough and lazy flushing do not concern it.
ENGINES = ("vtd-strict", "amd", "virtio")
SWEPT = ("vtd-strict", "passthrough")

MEMORY = ("4k-scattered", "4k-contig", "64k", "thp", "hugetlb-2m", "hugetlb-1g", "mixed")
RECORD = 16 * M                     # the size of the figures of record

OURS = ("ours-pinned", "ours-mirrored")
RDMA = ("rdma-umem", "rdma-odp")    # through ours
PEERS = ("ib_umem", "xdp", "odp", "gpusvm")
ENGINE_PATHS = ("iommufd", "vfio-type1")
PARTS = ("pin_user_pages_fast", "hmm_range_fault")
PARTS_IOMMU = ("iommu_map", "dma_iova_link")
# One page of a registered range of 16 MiB: fault it in, take it away from all that is mapped.
LATENCY = {"4k-scattered": ("fault-4k", "invalidate-4k"), "thp": ("fault-2m", "invalidate-2m")}
# Peers and parts on the unpatched kernel have this behind their name.
BASE = "@base"

BOOT_ARGS = ("hugepagesz=1G hugepages=1 vfio_iommu_type1.allow_unsafe_interrupts=1 "
             "iommufd.allow_unsafe_interrupts=1")


def specs(backend):
    """[(memory, bytes)] of one backend."""
    out = [("4k-scattered", 4 * K)] + [(m, RECORD) for m in MEMORY]
    if backend in SWEPT:
        out += [("4k-scattered", n) for n in (64 * K, 2 * M, 256 * M, G)]
        out += [("thp", n) for n in (4 * K, 64 * K, 2 * M, 256 * M, G)]
        out += [("16k", RECORD), ("runs-1-8", RECORD), ("256k", RECORD), ("hugetlb-1g", G)]
    return out


def latency(path, memory):
    return [f"{path}-{p}" for p in LATENCY.get(memory, ())]


def rows(backend, spec, base=False):
    """The paths that must come of one (memory, bytes) inside the kernel."""
    memory, size = spec
    paths = list(PEERS + PARTS) + (list(PARTS_IOMMU) if backend in IOMMU else [])
    if size == RECORD:
        paths += latency("odp", memory)
    if base:
        return [p + BASE for p in paths]
    paths = list(OURS + RDMA) + paths
    if size == RECORD:
        paths += latency("ours", memory) + latency("rdma", memory)
    if size == 4 * K:
        paths += ["ours-pinned-ioctl", "ours-mirrored-ioctl"]
    return paths


class Guest:
    """One boot: what it measures, what must come back."""

    def __init__(self, name, backend, kernel_specs, user_specs=(), base=False):
        self.name, self.backend, self.base = name, backend, base
        self.filter = ",".join(map(spec_text, kernel_specs))
        if user_specs:
            self.filter += "+" + ",".join(map(spec_text, user_specs))
        self.expected = [(p, backend, m, n) for m, n in kernel_specs
                         for p in rows(backend, (m, n), base)]
        self.expected += [(p, backend, m, n) for m, n in user_specs for p in ENGINE_PATHS]

    def run(self, kernel, initrd, icount=True):
        logs = f"{vm.BUILD}/logs/bench-{self.name}{'' if icount else '-wall'}"
        return vm.Run(kernel, initrd, BACKENDS[self.backend], ["bench"], logs, kind="run", timeout=1200,
                      mem="4G", smp=1, icount=icount, filter=self.filter, hugepages=160, extra=BOOT_ARGS)


def spec_text(spec):
    memory, size = spec
    for unit, letter in ((G, "G"), (M, "M"), (K, "K")):
        if size % unit == 0:
            return f"{memory}:{size // unit}{letter}"
    raise ValueError(spec)


def guests():
    """All of them, the longest first, so that two at a time end together."""
    out = [Guest(b, b, specs(b), specs(b) if b in ENGINES else ()) for b in SWEPT]
    out += [Guest(b, b, specs(b), specs(b) if b in ENGINES else ()) for b in BACKENDS if b not in SWEPT]
    small = [("4k-scattered", RECORD), ("thp", RECORD)]
    out += [Guest(f"base-{b}", b, small, base=True) for b in ("vtd-strict", "amd")]
    return out
