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
# What the debug kernel, and with it the test suites, get besides:
# icount: without KVM, the guest's clock counts instructions, so that the 100 ms that the
# test device takes for each DMA cost nothing; its CPUs then take turns. The boots without
# it have CPUs that really run at the same time, for the races.
# Small bounce buffers (16 MiB), so that they can be filled. Persistent memory and peer
# memory, and a movable zone: on one boot each.
BOOTS = {
    # The longest first.
    "direct": dict(qemu=Q35 + EDU, cmdline="dma_debug=off", debug=dict(cmdline="swiotlb=8192")),
    "swiotlb": dict(qemu=Q35 + EDU, cmdline="swiotlb=8192,force dma_debug=off kmemleak=off",
                    debug=dict(icount=True)),
    "intel-strict": dict(qemu=Q35_SPLIT + ["-device", "intel-iommu"] + EDU,
                         cmdline="intel_iommu=on iommu.strict=1 lab.rdma=all dma_debug=off", debug=dict(icount=True)),
    "intel-lazy": dict(qemu=Q35_SPLIT + ["-device", "intel-iommu"] + EDU,
                       cmdline="intel_iommu=on iommu.strict=0 dma_debug=off kmemleak=off",
                       debug=dict(qemu=NVME, cmdline="memmap=32M!4G"), suites=["gup_range"]),
    "intel-pt": dict(qemu=Q35_SPLIT + ["-device", "intel-iommu"] + EDU,
                     cmdline="intel_iommu=on iommu=pt dma_debug=off kmemleak=off",
                     debug=dict(icount=True, cmdline="swiotlb=8192"), suites=["gup_range"]),
    "amd": dict(qemu=Q35_SPLIT + ["-device", "amd-iommu"] + EDU, cmdline="kmemleak=off lab.rdma=kinds",
                debug=dict(icount=True, cmdline="movablecore=512M")),
    "virtio": dict(qemu=Q35 + ["-device", "virtio-iommu-pci"] + EDU,
                   cmdline="dma_debug=off kmemleak=off", debug=dict(icount=True), suites=["gup_range"]),
    # VT-d again, by the CPU's format of page tables, which scalable mode walks. An older QEMU has
    # no such device: this boot is skipped there.
    "intel-first": dict(qemu=Q35_SPLIT + ["-device", "intel-iommu,x-scalable-mode=on,x-flts=on"] + EDU,
                        cmdline="intel_iommu=on,sm_on iommu.strict=1 dma_debug=off kmemleak=off",
                        debug=dict(icount=True), suites=["gup_range"], needs_qemu="10.0"),
    # KUnit of the IOMMU page tables: physical addresses that are not there, which the IOMMU page
    # check cannot count. Two of upstream's tests, test_random_map and test_map_table_to_oa, take
    # minutes, so on one format only. A glob is all that KUnit has to tell them by.
    "iommupt": dict(qemu=Q35, cmdline="kmemleak=off dma_debug=off iommu.debug_pagealloc=0 "
                    "kunit.filter_glob=*_iommu_test.test_*[!ap]", suites=["iommupt"]),
    "iommupt-long": dict(qemu=Q35, cmdline="kmemleak=off dma_debug=off iommu.debug_pagealloc=0 "
                         "kunit.filter_glob=vtdss_iommu_test.test_*[ap]", suites=["iommupt"]),
    # Software RDMA devices, which have no DMA, and programs of Debian's. The clients time
    # out when they are as slow as the debug kernel makes them.
    "rdma": dict(qemu=Q35, cmdline="dma_debug=off kmemleak=off",
                 suites=["rdma-clients", "rdma-values", "rdma-pyverbs", "rdma-verbs"],
                 debug=dict(suites=["rdma-values", "rdma-verbs"])),
    # Not for the test suites: upstream's own selftests need no device.
    "upstream": dict(qemu=Q35_SPLIT + ["-device", "intel-iommu"] + EDU,
                     cmdline="intel_iommu=on"),
}

# What each guest kernel is made of: files of lab/config. "base" is the unpatched one, which
# has the options of "run". "each" is never booted: what the patches touch is compiled in it.
FRAGMENTS = {
    "debug": ["common", "debug", "gup_range", "rdma"],
    "run": ["common", "run", "gup_range", "rdma"],
    "base": ["common", "run", "rdma"],
    "each": ["common", "debug", "gup_range", "rdma"],
}

TEST_BOOTS = [b for b in BOOTS if b != "upstream"]
SUITES = ["kunit", "gup_range"]


def debug_suites(boot):
    """What is run on the debug kernel."""
    spec = BOOTS[boot]
    return spec.get("debug", {}).get("suites") or spec.get("suites", SUITES)


# loglevel=7 puts the banners of the detectors on the console, where they are
# looked for. A suite is run by name from the guest's init.
CMDLINE = ("console=ttyS0 loglevel=7 panic=-1 oops=panic kunit.autorun=0 kunit.enable=1")

# For the debug kernel. init_on_free=1 only to make page poisoning say that it
# is on: it takes precedence over init_on_free and prints so.
CMDLINE_DEBUG = "panic_on_warn=1 iommu.debug_pagealloc=1 page_poison=1 init_on_free=1"

# Half of the memory is above 4 GiB: a device with 32 address bits does not reach it.
QEMU_DEBUG = ["-machine", "max-ram-below-4g=1G"]

# For the provoked hang: the hung task detector reports after ten seconds.
CMDLINE_HANG = "sysctl.kernel.hung_task_timeout_secs=10 sysctl.kernel.hung_task_panic=1"
