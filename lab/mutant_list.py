"""What lab/mutants breaks, and which test has to notice.

The numbers are those of the contracts: 1 all or nothing, 2 order, 3 rights,
4 invalidate is final, 5 publish under the lock, 6 cost follows runs, 7 memory
is bounded, 8 dirty once, 9 accounting has one owner, 10 refuse early,
11 teardown.
"""
import collections

Mutant = collections.namedtuple("Mutant", "name contract file old new suite filter red boot splat",
                                defaults=("intel-strict", None))

RANGE, HMM, GUP = "mm/gup_range.c", "mm/hmm_dma.c", "mm/gup.c"
ODP = "drivers/infiniband/core/umem_odp.c"

MUTANTS = [
    Mutant("failed-pin-stays", "1 a failed pin leaves its pages pinned", RANGE,
           """	if (ret) {
		gup_range_unpin_pages(range, false);
		gup_range_uncharge(range);
""", """	if (ret) {
		gup_range_uncharge(range);
""", "kunit", "gup_range", "pin_hole", splat="WARNING"),
    Mutant("failed-link-stays", "1 a failed link leaves what it linked", "drivers/iommu/iommu.c",
           """	if (ret && mapped)
		iommu_unmap(domain, iova, mapped);
	return ret;
}

int iommu_map(""", """	return ret;
}

int iommu_map(""", "gup_range", "fail_each_table", "fail_each_table", splat="WARNING"),
    Mutant("errno-invented", "1 a short pin has an errno of its own", RANGE,
           "		ret = gup_range_pin_batch(range, addr, left, vecs, &nr);\n",
           "		ret = gup_range_pin_batch(range, addr, left, vecs, &nr) ? -EINVAL : 0;\n",
           "gup_range", "hole", r"input\.pinned\.hole"),
    Mutant("read-only-writes", "3 a read-only range is mapped for writing", "mm/gup_range.h",
           "	return range->flags & GUP_RANGE_WRITE ? DMA_BIDIRECTIONAL : DMA_TO_DEVICE;\n",
           "	return DMA_BIDIRECTIONAL;\n", "gup_range", "read_only_map", r"pinned.*read_only_map_stops_write"),
    Mutant("write-not-asked", "3 pages are pinned for reading and mapped for writing", RANGE,
           "		gup_flags |= FOLL_WRITE;\n", "		gup_flags |= 0;\n", "gup_range", "read_only_and_write",
           r"pinned\.read_only_and_write"),
    Mutant("pinned-unmap-lost", "4 an unmap leaves the pages mapped", RANGE,
           """		gup_map_unlink(map, 0, nr << PAGE_SHIFT, gup_range_dir(range),
			       0);
""", "", "gup_range", "unmapped_address_is_dead", r"pinned.*unmapped_address_is_dead"),
    Mutant("runs-not-merged", "6 and 7 each page is a run", RANGE,
           "	return runs->nr && pfn % GUP_RUN_MAX_PAGES &&\n", "	return 0 && pfn % GUP_RUN_MAX_PAGES &&\n",
           "kunit", "gup_range", "runs_add"),
    Mutant("no-sync", "6 a map ends without the sync", RANGE,
           """	if (!ret)
		ret = gup_map_sync(map, 0, done);
""", "", "gup_range", "cost_and_shape", r"pinned.*cost_and_shape"),
    Mutant("no-slack", "6 the IOVA is not congruent with the address", "drivers/iommu/dma-iommu.c",
           "	*offset = (addr - state->addr) & (fit.leaf - 1);\n", "", "gup_range", "congruent",
           "congruent_in_the_middle"),
    Mutant("pin-per-page", "6 a huge page takes a pin for each of its pages", GUP,
           "	return paddr == v->next && v->folio && page_folio(page) == v->folio;\n", "	return false;\n",
           "kunit", "vecs", "."),
    Mutant("pinned-not-dirty", "8 pages that the device wrote stay clean", RANGE,
           "	gup_range_release(range, range->flags & GUP_RANGE_WRITE);\n", "	gup_range_release(range, false);\n",
           "gup_range", "dirty", r"pinned\.dirty"),
    Mutant("charge-stays", "9 an unpin gives back the pages and not the charge", RANGE,
           "		atomic64_sub(nr, &range->mm->pinned_vm);\n		break;\n", "		break;\n", "gup_range",
           "accounting_pinned_vm", r"accounting_pinned_vm"),
    Mutant("limit-off-by-one", "9 one page more than the limit", RANGE,
           "		if (old + nr > limit && !capable(CAP_IPC_LOCK)) {\n",
           "		if (old + nr > limit + 1 && !capable(CAP_IPC_LOCK)) {\n", "gup_range", "limit_user", "limit_user"),
    Mutant("unmap-twice", "11 a second unmap is not noticed", RANGE,
           "	if (WARN_ON_ONCE(!map->range || map->range != range))\n		return;\n",
           "	if (!map->range || map->range != range)\n		return;\n", "kunit", "gup_range", "warn_unmap_twice"),
    Mutant("unpin-before-unmap", "2 pages are unpinned while the device reaches them", RANGE,
           "	nr = gup_range_nr_pages(range);\n	if (dma_use_iova(&map->state)) {\n		gup_map_unlink(",
           "	nr = gup_range_nr_pages(range);\n	if (range->auto_pin)\n		gup_range_unpin_pages(range, true);\n"
           "	if (dma_use_iova(&map->state)) {\n		gup_map_unlink(", "gup_range", "device_writes", ".", splat="."),
    Mutant("link-wrong-place", "6 linked runs are off by a page", RANGE,
           "	return dma_iova_link_vecs(map->dev, &map->state, map->slack + offset,\n",
           "	return dma_iova_link_vecs(map->dev, &map->state, map->slack + (offset ?: PAGE_SIZE),\n",
           "gup_range", "device_reads", "device_reads", splat="."),
    Mutant("mirror-read-only-writes", "3 a read-only mirrored page is mapped for writing", HMM,
           "	return write || map->bidir ? DMA_BIDIRECTIONAL : DMA_TO_DEVICE;\n",
           "	return DMA_BIDIRECTIONAL;\n",
           "gup_range", "read_only_map", r"mirrored.*read_only_map_stops_write"),
    Mutant("upgrade-assumed", "3 a page that was mapped for reading is taken as writable", HMM,
           "			if (have & HMM_RUN_WRITE || !(run & HMM_RUN_WRITE))\n				continue;\n",
           "			continue;\n", "gup_range", "read_then_write", "read_then_write"),
    Mutant("upgrade-takes-all", "3 an upgrade in place makes all of the unit writable", HMM,
           "	unsigned long from = max(hmm_run_first(want), first);\n",
           "	unsigned long from = first;\n", "kunit", "hmm_range", "hmm_upgrade_in_place"),
    Mutant("odp-read-only-writes", "3 a region that is only read is mapped for writing", ODP,
           "	umem_odp->map.bidir = umem_odp->umem.writable;\n", "	umem_odp->map.bidir = true;\n",
           "gup_range", "read_only_map", r"odp.*read_only_map_stops_write"),
    Mutant("odp-unmap-lost", "4 an invalidation of on-demand paging leaves the pages mapped", ODP,
           "	hmm_range_dma_unmap(&umem_odp->map, &start, &end);\n", "",
           "gup_range", "munmap", r"mirror\.odp.*munmap"),
    Mutant("upgrade-cuts-unit", "4 an upgrade in place forgets what was linked together", HMM,
           "	u64 cont = prep->map->linear ? 0 : HMM_RUN_CONT;\n", "	u64 cont = 0;\n",
           "gup_range", "upgrade_then_unmap", r"odp.*upgrade_then_unmap", splat="."),
    Mutant("segments-cut-unit", "4 the segments are not all of what an unmap takes", HMM,
           "	while (i < block->nr && block->run[i] & HMM_RUN_CONT)\n		i--;\n", "",
           "kunit", "hmm_range", "hmm_many_random"),
    Mutant("snapshot-faults", "10 what is not there is faulted although nobody asked", HMM,
           "	chunk.end = prep->last;\n",
           "	chunk.end = prep->last;\n	chunk.default_flags |= HMM_PFN_REQ_FAULT;\n",
           "kunit", "hmm_range", "hmm_snapshot"),
    Mutant("last-block", "10 the end of the address space may be mirrored", HMM,
           "	if (!ALIGN(end, HMM_BLOCK_SIZE))\n		return -EOVERFLOW;\n", "",
           "gup_range", "last_block_of", r"(mirrored|odp)\.last_block_of", splat="."),
    Mutant("invalidate-lost", "4 an invalidation leaves the pages mapped", HMM,
           "	hmm_unlink(map, *start, *end, true);\n	trace_hmm_range_invalidate", "	trace_hmm_range_invalidate",
           "gup_range", "munmap", r"mirror\..*munmap"),
    Mutant("invalidate-half", "4 an invalidation of a part of a unit leaves the unit", HMM,
           "	hmm_unit(map, va, start, &unused, &run);\n	va = *end - PAGE_SIZE;\n",
           "	va = *end - PAGE_SIZE;\n", "kunit", "hmm_range", "hmm_unmap", splat="."),
    Mutant("sequence-not-checked", "5 what an invalidation made stale is published", HMM,
           "	if (!mmu_interval_read_retry(range->notifier, range->notifier_seq))\n", "	if (1)\n",
           "kunit", "hmm_range", "hmm_map_retries"),
    Mutant("mirror-not-dirty", "8 a page that the device writes has a clean entry", "mm/hmm.c",
           "	       (!write || (pte_write(pte) && pte_dirty(pte)));\n", "	       (!write || pte_write(pte));\n",
           "kunit", "hmm_range", "dirt"),
    Mutant("snapshot-not-dirty", "8 a page with a clean entry is reported as writable", "mm/hmm.c",
           "	return write && dirty ? HMM_PFN_VALID", "	return write ? HMM_PFN_VALID",
           "gup_range_dirty", "reclaim", r"dirty\.mirrored_free_thp"),
    Mutant("bounce-mirrors", "10 a device that bounces may mirror", HMM,
           "	if (!dev_is_dma_coherent(dev) || is_swiotlb_force_bounce(dev) ||\n",
           "	if (!dev_is_dma_coherent(dev) ||\n", "gup_range", "mirror_refused", "mirror_refused", "swiotlb"),
    Mutant("destroy-twice", "11 a second destroy is not noticed", HMM,
           "	if (WARN_ON_ONCE(!map->notifier))\n		return;\n	/* The callback may",
           "	if (!map->notifier)\n		return;\n	/* The callback may", "kunit", "hmm_range", "warn_destroy"),
]
