"""The guests: one table of QEMU options and kernel command lines.

Each boot is a different way from a device to memory, because each of them has
failed in its own way: no IOMMU, bounce buffers, an IOMMU with immediate
(strict) or deferred (lazy) flushing, one that is bypassed, and three makes.
Others are there for their suites: iommupt, rdma, upstream.
"""

Q35 = ["-M", "q35"]
# Interrupt remapping and the IOMMUs need the interrupt controller in QEMU.
Q35_SPLIT = ["-M", "q35,kernel-irqchip=split"]

# The test device: it does DMA to any 64-bit address; a smaller mask would
# silently truncate addresses and write somewhere else.
EDU = ["-device", "edu,dma_mask=0xffffffffffffffff"]

# A controller without a drive: other devices, and users, can ask for its memory.
NVME = ["-device", "nvme,serial=lab,cmb_size_mb=16"]

# One of the boots checks DMA API usage (dma-debug), the others do not, because it
# changes timing and runs out of memory first. kmemleak looks for lost memory without an IOMMU and with
# one; the others do without, because it records a stack for every allocation, which
# without KVM makes a boot three times as long. KUnit needs no device, so that it runs
# with each of the detectors and not on every boot.
#
# tests: what a guest that runs the test suites gets besides, whatever its kernel.
# icount: without KVM, the guest's clock counts instructions, so that the 100 ms that the
# test device takes for each DMA cost nothing; its CPUs then take turns. The boots without
# it have CPUs that really run at the same time, for the races.
# Small bounce buffers (16 MiB), so that they can be filled. Persistent memory and peer
# memory, and a movable zone: on one boot each.
BOOTS = {
    "direct": dict(qemu=Q35 + EDU, cmdline="lab.backend=none dma_debug=off lab.rdma=range.*,mirror.odp_4k.*,held.*,dirty.*",
                   tests=dict(cmdline="swiotlb=8192")),
    "swiotlb": dict(qemu=Q35 + EDU, cmdline="lab.backend=swiotlb swiotlb=8192,force dma_debug=off kmemleak=off",
                    tests=dict(icount=True)),
    "intel-strict": dict(qemu=Q35_SPLIT + ["-device", "intel-iommu"] + EDU,
                         cmdline="lab.backend=vtd-strict slab_nomerge intel_iommu=on iommu.strict=1 dma_debug=off",
                         tests=dict(icount=True)),
    "intel-lazy": dict(qemu=Q35_SPLIT + ["-device", "intel-iommu"] + EDU,
                       cmdline="lab.backend=vtd-lazy slab_nomerge intel_iommu=on iommu.strict=0 dma_debug=off "
                       "kmemleak=off lab.rdma=range.*_4k.*,mirror.odp_4k.*,input.*.fs_dax,input.*.p2pdma",
                       tests=dict(qemu=NVME, cmdline="memmap=32M!4G")),
    "intel-pt": dict(qemu=Q35_SPLIT + ["-device", "intel-iommu"] + EDU,
                     cmdline="lab.backend=vtd-pt intel_iommu=on iommu=pt dma_debug=off kmemleak=off "
                     "lab.rdma=range.*,mirror.*,input.*",
                     tests=dict(icount=True, cmdline="swiotlb=8192")),
    "amd": dict(qemu=Q35_SPLIT + ["-device", "amd-iommu"] + EDU,
                cmdline="lab.backend=amd slab_nomerge kmemleak=off lab.rdma=range.*,mirror.*,reach.*",
                tests=dict(icount=True, cmdline="movablecore=512M")),
    "virtio": dict(qemu=Q35 + ["-device", "virtio-iommu-pci"] + EDU,
                   cmdline="lab.backend=virtio slab_nomerge dma_debug=off kmemleak=off "
                   "lab.rdma=range.*,mirror.*,held.*", tests=dict(icount=True)),
    # VT-d again, by the CPU's format of page tables, which scalable mode walks: what holds on
    # intel-strict holds here. A QEMU older than 10.0 has no such device.
    "intel-first": dict(qemu=Q35_SPLIT + ["-device", "intel-iommu,x-scalable-mode=on,x-flts=on"] + EDU,
                        cmdline="lab.backend=vtd-strict slab_nomerge intel_iommu=on,sm_on iommu.strict=1 "
                        "dma_debug=off kmemleak=off", tests=dict(icount=True), needs_qemu="10.0", like="intel-strict"),
    # Room for 4 TiB of IOVA, and one page of 1 GiB to map many times side by side
    "intel-large": dict(qemu=Q35_SPLIT + ["-device", "intel-iommu,aw-bits=48"] + EDU,
                        cmdline="intel_iommu=on iommu.strict=1 hugepagesz=1G hugepages=1"),
    # KUnit of the IOMMU page tables: physical addresses that are not there, which the IOMMU page
    # check cannot count. Two of upstream's tests take minutes and say that they are slow: they run
    # for one format only.
    "iommupt": dict(qemu=Q35, cmdline="kmemleak=off dma_debug=off iommu.debug_pagealloc=0 "
                    "kunit.filter=speed>slow"),
    "iommupt-long": dict(qemu=Q35, cmdline="kmemleak=off dma_debug=off iommu.debug_pagealloc=0 "
                         "kunit.filter_glob=vtdss_iommu_test kunit.filter=speed<=slow"),
    # Software RDMA devices, which have no DMA.
    "rdma": dict(qemu=Q35, cmdline="dma_debug=off kmemleak=off"),
    # Upstream's own selftests need no device.
    "upstream": dict(qemu=Q35_SPLIT + ["-device", "intel-iommu"] + EDU,
                     cmdline="intel_iommu=on"),
}

# What each guest kernel is made of: files of lab/config. "base" is the unpatched one, which
# has the options of "run". "each" is never booted: what the patches touch is compiled in it.
FRAGMENTS = {
    "demo": ["common", "edu"],
    "debug": ["common", "tests", "debug", "gup_range", "rdma"],
    "run": ["common", "tests", "run", "gup_range", "rdma"],
    "base": ["common", "tests", "run", "rdma"],
    "each": ["common", "tests", "debug", "gup_range", "rdma"],
}


class Guest:
    """One line of the plan of `make test`: a boot, a kernel, and what is run there.

    essential: a run of the tests is worth nothing without it. seconds: how long it took where
    README.md was measured; it decides what fits into a time limit, and the order.
    """

    def __init__(self, label, suites, seconds, *, boot=None, kernel="debug", essential=True, extra="", rdma=False,
                 **options):
        self.label, self.boot, self.kernel = label, boot or label, kernel
        self.suites, self.seconds, self.essential = suites, seconds, essential
        self.extra, self.rdma, self.options = extra, rdma, options


# The kernel that ships has no detectors, and takes other ways than one that has: dma-debug
# alone makes it keep each address. So some boots come once more on the kernel "run".
PRODUCT = "-product"
# KUnit has no device behind an IOMMU, so it runs once with each detector, once with bounce
# buffers, and once without detectors.
GUESTS = [
    Guest("direct", ["kunit", "gup_range", "gup_range_dirty"], 500),
    Guest("swiotlb", ["kunit", "gup_range"], 110),
    Guest("intel-strict", ["gup_range", "gup_range_dirty"], 450),
    Guest("intel-lazy", ["gup_range"], 340),
    Guest("intel-pt", ["gup_range"], 330),
    Guest("amd", ["kunit", "gup_range"], 330),
    Guest("virtio", ["gup_range"], 430),
    Guest("rdma", ["rdma-values", "rdma-verbs"], 120, rdma=True),
    # The same tests through RDMA's ib_umem and on-demand paging
    Guest("intel-strict-rdma", ["gup_range", "gup_range_dirty"], 360, boot="intel-strict", extra="lab.rdma=only"),
    Guest("direct-product", ["kunit", "gup_range"], 60, boot="direct", kernel="run"),
    Guest("intel-strict-product", ["gup_range"], 40, boot="intel-strict", kernel="run", essential=False),
    Guest("intel-pt-product", ["gup_range"], 50, boot="intel-pt", kernel="run", essential=False),
    # The IOMMU page check of the debug kernel counts each page.
    Guest("intel-large", ["gup_range_large"], 80, kernel="run", mem="6G", essential=False),
    Guest("intel-first", ["gup_range"], 450, essential=False),
    Guest("iommupt", ["iommupt"], 40, essential=False),
    Guest("iommupt-long", ["iommupt"], 140, essential=False),
]

# loglevel=7 puts the banners of the detectors on the console, where they are
# looked for. A suite is run by name from the guest's init.
CMDLINE = ("console=ttyS0 loglevel=7 panic=-1 oops=panic kunit.autorun=0 kunit.enable=1")

# For the debug kernel. init_on_free=1 only to make page poisoning say that it
# is on: it takes precedence over init_on_free and prints so.
CMDLINE_DEBUG = "panic_on_warn=1 iommu.debug_pagealloc=1 page_poison=1 init_on_free=1"

# Half of the memory is above 4 GiB: a device with 32 address bits does not reach it.
QEMU_TESTS = ["-machine", "max-ram-below-4g=1G"]

# For the provoked hang: the hung task detector reports after ten seconds.
CMDLINE_HANG = "sysctl.kernel.hung_task_timeout_secs=10 sysctl.kernel.hung_task_panic=1"
