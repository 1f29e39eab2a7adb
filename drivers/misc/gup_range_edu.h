/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of the test driver share. */
#ifndef _GUP_RANGE_EDU_H
#define _GUP_RANGE_EDU_H

#include <linux/gup_range.h>
#include <linux/kref.h>
#include <linux/miscdevice.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/rwsem.h>
#include <linux/wait.h>

struct gup_range_edu_query;
struct ib_device;
struct ib_umem;

struct edu {
	struct kref		ref;
	struct pci_dev		*pdev;
	void __iomem		*mmio;
	struct miscdevice	misc;
	void			*buf;		/* protected by dma_lock */
	dma_addr_t		buf_addr;
	size_t			loaded;		/* bytes of buf the device has, too */
	struct mutex		dma_lock;	/* one DMA at a time */
	bool			busy;		/* DMA under way; set under dma_lock */
	wait_queue_head_t	idle;
	struct rw_semaphore	gone_sem;	/* write: the device goes */
	bool			gone;		/* protected by gone_sem */
	struct list_head	files;		/* protected by files_lock */
	struct mutex		files_lock;
	struct ib_device	*ibdev;		/* CONFIG_GUP_RANGE_EDU_RDMA */
	atomic64_t		interrupted;	/* maps */
};

struct edu_handle {
	struct edu		*edu;
	struct mm_struct	*mm;
	unsigned int		flags;
	struct gup_range	range;		/* pinned by us; else start and end */
	struct gup_range_map	pinned;
	struct hmm_range_map	*mirror;	/* own_mirror, or of ODP */
	struct mutex		*lock;		/* of mirror, against invalidation */
	struct hmm_range_map	own_mirror;
	struct mutex		own_lock;	/* as lock, for own_mirror */
	struct ib_umem		*umem;		/* GUP_RANGE_EDU_MAP_RDMA */
};

void edu_zap(struct edu *edu, struct hmm_range_map *map);

#ifdef CONFIG_GUP_RANGE_EDU_RDMA
int edu_rdma_init(struct edu *edu);
void edu_rdma_destroy(struct edu *edu);
int edu_rdma_map(struct edu_handle *h, size_t granule);
void edu_rdma_unmap(struct edu_handle *h);
int edu_odp_fault(struct edu_handle *h, unsigned long start, unsigned long end,
		  bool write);
size_t edu_odp_writable(struct edu_handle *h, unsigned long va);
void edu_odp_unmap(struct edu_handle *h, unsigned long *start,
		   unsigned long *end);
int edu_umem_addr(struct edu_handle *h, unsigned long va, dma_addr_t *addr,
		  size_t *len);
int edu_umem_copy(struct edu_handle *h, void *data, size_t offset, size_t len);
void edu_umem_query(struct edu_handle *h, struct gup_range_edu_query *req);
#else
static inline int edu_rdma_init(struct edu *edu)
{
	return 0;
}

static inline void edu_rdma_destroy(struct edu *edu)
{
}

static inline int edu_rdma_map(struct edu_handle *h, size_t granule)
{
	return -EOPNOTSUPP;
}

/* No handle gets so far. */
static inline void edu_rdma_unmap(struct edu_handle *h)
{
}

static inline int edu_odp_fault(struct edu_handle *h, unsigned long start,
				unsigned long end, bool write)
{
	return -EOPNOTSUPP;
}

static inline size_t edu_odp_writable(struct edu_handle *h, unsigned long va)
{
	return 0;
}

static inline void edu_odp_unmap(struct edu_handle *h, unsigned long *start,
				 unsigned long *end)
{
}

static inline int edu_umem_addr(struct edu_handle *h, unsigned long va,
				dma_addr_t *addr, size_t *len)
{
	return -EOPNOTSUPP;
}

static inline int edu_umem_copy(struct edu_handle *h, void *data, size_t offset,
				size_t len)
{
	return -EOPNOTSUPP;
}

static inline void edu_umem_query(struct edu_handle *h,
				  struct gup_range_edu_query *req)
{
}
#endif

#endif /* _GUP_RANGE_EDU_H */
