/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _GUP_RANGE_BENCH_H
#define _GUP_RANGE_BENCH_H

#include <linux/dma-mapping.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>

#include "gup_range_bench_uapi.h"

struct bench_path;

/**
 * struct bench - what one measurement works on
 * @path: what is measured
 * @dev: device that the memory is mapped for
 * @start: user address of the first page, in current->mm
 * @nr: pages
 * @part: user address of the first page that is measured, if not all are
 * @part_nr: pages
 * @write: the device writes
 * @links: calls of the last map that map something
 * @syncs: calls of the last map that sync the IOTLB
 * @flushes: IOTLB flushes that the last unmap waited for
 * @notifier: of @start and @nr, if the path has mirrored set
 * @lock: taken by its callback, and to map and unmap
 * @pages: one per page
 * @dma: addresses, one per page
 * @pool: a copy of @dma, as AF_XDP has it
 * @pfns: of hmm_range_fault() or ODP, one per page
 * @state: IOVA
 * @sgt: of ib_umem
 * @ours: of the paths in gup_range_bench_ours.c, zeroed
 */
struct bench {
	const struct bench_path	*path;
	struct device		*dev;
	unsigned long		start;
	unsigned long		nr;
	unsigned long		part;
	unsigned long		part_nr;
	bool			write;
	u64			links;
	u64			syncs;
	u64			flushes;

	struct mmu_interval_notifier notifier;
	struct mutex		lock;	/* the driver's, for mirrored paths */
	struct page		**pages;
	dma_addr_t		*dma;
	dma_addr_t		*pool;
	unsigned long		*pfns;
	struct dma_iova_state	state;
	struct sg_append_table	sgt;
	u64			ours[128];
};

/**
 * struct bench_path - one way from user memory to DMA addresses
 * @setup: what is done once per registered range; not timed
 * @teardown: undoes @setup
 * @before: done before each @map; not timed
 * @map: timed
 * @mapped: done after it; not timed
 * @unmap: timed
 * @after: done after each @unmap; not timed
 * @invalidate: for the notifier, with the lock held; may come before @setup
 * @mirrored: needs a notifier
 *
 * @setup and @map return 0 or -errno, and have then done nothing. Only @map
 * and @unmap are mandatory.
 */
struct bench_path {
	int	(*setup)(struct bench *b);
	void	(*teardown)(struct bench *b);
	void	(*before)(struct bench *b);
	int	(*map)(struct bench *b);
	void	(*mapped)(struct bench *b);
	void	(*unmap)(struct bench *b);
	void	(*after)(struct bench *b);
	void	(*invalidate)(struct bench *b, unsigned long start,
			      unsigned long end);
	bool	mirrored;
};

/* By enum gup_range_bench_path; those without @map do not exist. */
extern const struct bench_path gup_range_bench_ours[GUP_RANGE_BENCH_PATHS];
extern const struct bench_path gup_range_bench_rdma[GUP_RANGE_BENCH_PATHS];

#endif /* _GUP_RANGE_BENCH_H */
