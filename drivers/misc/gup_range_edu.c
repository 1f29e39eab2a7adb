// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test driver for gup_range: QEMU's "edu" device (docs/specs/edu in QEMU) copies
 * between its own buffer and the DMA address of user memory, pinned or mirrored,
 * by this driver or by RDMA (gup_range_edu_rdma.c).
 * See gup_range_edu_uapi.h for the interface, tools/testing/selftests/gup_range
 * for its user.
 *
 * Lock order: gone (read) -> file lock -> dma_lock -> mmap_lock -> handle lock.
 */
#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/hmm.h>
#include <linux/interrupt.h>
#include <linux/iommu-dma.h>
#include <linux/kasan.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/xarray.h>

#include "gup_range_edu.h"
#include "gup_range_edu_uapi.h"

#define EDU_VENDOR		0x1234
#define EDU_DEVICE		0x11e8

#define EDU_ID			0x00	/* 0xRRrr00ed */
#define EDU_IRQ_STATUS		0x24
#define EDU_IRQ_ACK		0x64
#define EDU_DMA_SRC		0x80
#define EDU_DMA_DST		0x88
#define EDU_DMA_COUNT		0x90
#define EDU_DMA_CMD		0x98
#define  EDU_DMA_RUN		BIT(0)
#define  EDU_DMA_TO_MEMORY	BIT(1)
#define  EDU_DMA_IRQ		BIT(2)
#define EDU_BUF			0x40000	/* address of its buffer in its eyes */

/* One DMA takes 100 ms of the device's time. */
#define EDU_DMA_MS		100
#define EDU_TIMEOUT		(20 * HZ)

struct edu_file {
	struct edu		*edu;
	struct list_head	node;
	struct mutex		lock;		/* protects handles and masked */
	struct xarray		handles;
	bool			masked;		/* close() gives the mask back */
};

static irqreturn_t edu_irq(int irq, void *data)
{
	struct edu *edu = data;
	u32 status = readl(edu->mmio + EDU_IRQ_STATUS);

	if (!status)
		return IRQ_NONE;
	writel(status, edu->mmio + EDU_IRQ_ACK);
	WRITE_ONCE(edu->busy, false);
	wake_up_all(&edu->idle);
	return IRQ_HANDLED;
}

/* Does an IOMMU stop the device after unmap? */
static bool edu_protected(struct edu_handle *h)
{
	return use_dma_iommu(&h->edu->pdev->dev);
}

static bool edu_idle(struct edu *edu)
{
	return !READ_ONCE(edu->busy);
}

/* A DMA cannot be called off. A device that was pulled out does none. */
static void edu_quiesce(struct edu *edu)
{
	if (!wait_event_timeout(edu->idle, edu_idle(edu), EDU_TIMEOUT))
		WRITE_ONCE(edu->busy, false);
}

static void edu_start(struct edu *edu, size_t buf_offset, dma_addr_t addr,
		      size_t len, bool to_memory)
{
	u64 buf = EDU_BUF + buf_offset;

	lockdep_assert_held(&edu->dma_lock);
	if (!to_memory)
		edu->loaded = 0;
	WRITE_ONCE(edu->busy, true);
	writeq(to_memory ? buf : addr, edu->mmio + EDU_DMA_SRC);
	writeq(to_memory ? addr : buf, edu->mmio + EDU_DMA_DST);
	writeq(len, edu->mmio + EDU_DMA_COUNT);
	writeq(EDU_DMA_RUN | EDU_DMA_IRQ | (to_memory ? EDU_DMA_TO_MEMORY : 0),
	       edu->mmio + EDU_DMA_CMD);
}

static int edu_wait(struct edu *edu)
{
	long ret;

	ret = wait_event_interruptible_timeout(edu->idle, edu_idle(edu),
					       EDU_TIMEOUT);
	if (ret > 0)
		return 0;
	return ret ? -EINTR : -EIO;
}

/* Between the device's buffer and edu->buf. */
static int edu_buffer(struct edu *edu, size_t len, bool to_memory)
{
	int ret;

	edu_start(edu, 0, edu->buf_addr, len, to_memory);
	ret = edu_wait(edu);
	edu->loaded = ret ? 0 : len;
	return ret;
}

/* Have @data in the device's buffer: 100 ms, unless it is there already. */
static int edu_load(struct edu *edu, const void *data, size_t len)
{
	if (len <= edu->loaded && !memcmp(edu->buf, data, len))
		return 0;
	memcpy(edu->buf, data, len);
	return edu_buffer(edu, len, false);
}

/* ------------------------------------------------------------------ handles */

/*
 * Without an IOMMU nothing but the end of a DMA stops it. One is started under the
 * lock of the mapping, so none begins now.
 */
void edu_zap(struct edu *edu, struct hmm_range_map *map)
{
	if (!gup_range_map_protected(&map->base))
		edu_quiesce(edu);
}

static void edu_mirror_zap(struct hmm_range_map *map, unsigned long start,
			   unsigned long end)
{
	struct edu_handle *h = container_of(map, struct edu_handle, own_mirror);

	edu_zap(h->edu, map);
}

/* The device has no page table: what is mapped is looked up for each DMA. */
static const struct hmm_range_map_ops edu_mirror_ops = {
	.zap = edu_mirror_zap,
};

static int edu_fault(struct edu_handle *h, unsigned long *start,
		     unsigned long *end, bool write, bool lock)
{
	struct hmm_range range = {
		.start = *start,
		.end = *end,
		.default_flags = HMM_PFN_REQ_FAULT |
				 (write ? HMM_PFN_REQ_WRITE : 0),
	};
	int ret;

	if (h->umem) {
		ret = edu_odp_fault(h, *start, *end, write);
		if (!ret && !lock)
			mutex_unlock(h->lock);
		return ret;
	}
	ret = lock ? hmm_range_dma_map_and_lock(&range, h->mirror) :
		     hmm_range_dma_map(&range, h->mirror);
	*start = range.start;
	*end = range.end;
	return ret;
}

static void edu_mirror_unmap(struct edu_handle *h, unsigned long *start,
			     unsigned long *end)
{
	if (!edu_protected(h))
		edu_quiesce(h->edu);
	mutex_lock(h->lock);
	if (h->umem)
		edu_odp_unmap(h, start, end);
	else
		hmm_range_dma_unmap(h->mirror, start, end);
	mutex_unlock(h->lock);
}

static int edu_mirror(struct edu_handle *h, size_t granule)
{
	unsigned long start = h->range.start & PAGE_MASK;
	unsigned long end = PAGE_ALIGN(h->range.end);
	int ret;

	h->mirror = &h->own_mirror;
	ret = hmm_range_map_insert(h->mirror, &h->edu->pdev->dev, granule, h->mm,
				   start, end - start, &edu_mirror_ops, h->lock);
	if (ret)
		return ret;
	if (h->flags & GUP_RANGE_EDU_MAP_ONLY)
		return 0;
	ret = edu_fault(h, &start, &end, h->flags & GUP_RANGE_EDU_MAP_WRITE,
			false);
	if (ret)
		hmm_range_map_destroy(h->mirror);
	return ret;
}

static int edu_pin(struct edu_handle *h, size_t granule)
{
	int ret;

	ret = gup_range_map_init(&h->pinned, &h->edu->pdev->dev, granule);
	if (ret)
		return ret;
	if (h->flags & GUP_RANGE_EDU_MAP_ONLY)
		return gup_range_pin(&h->range);
	return gup_range_dma_map(&h->range, &h->pinned);
}

static struct edu_handle *edu_handle_alloc(struct edu *edu, unsigned int flags,
					   unsigned long start,
					   unsigned long end)
{
	struct edu_handle *h = kzalloc_obj(*h, GFP_KERNEL_ACCOUNT);

	if (!h)
		return NULL;
	h->edu = edu;
	h->mm = current->mm;
	h->flags = flags;
	h->range.mm = h->mm;
	h->range.start = start;
	h->range.end = end;
	if (flags & GUP_RANGE_EDU_MAP_WRITE)
		h->range.flags = GUP_RANGE_WRITE;
	mutex_init(&h->own_lock);
	h->lock = &h->own_lock;
	return h;
}

static int edu_handle_map(struct edu_handle *h, size_t granule)
{
	if (h->flags & GUP_RANGE_EDU_MAP_RDMA)
		return edu_rdma_map(h, granule);
	if (h->flags & GUP_RANGE_EDU_MAP_MIRROR)
		return edu_mirror(h, granule);
	return edu_pin(h, granule);
}

static void edu_handle_release(struct edu_handle *h)
{
	if (!edu_protected(h))
		edu_quiesce(h->edu);
	if (h->umem)
		edu_rdma_unmap(h);
	else if (h->flags & GUP_RANGE_EDU_MAP_MIRROR)
		hmm_range_map_destroy(h->mirror);
	else if (h->flags & GUP_RANGE_EDU_MAP_ONLY)
		gup_range_unpin(&h->range);
	else
		gup_range_dma_unmap(&h->range, &h->pinned);
	mmdrop(h->mm);
	kfree(h);
}

static struct edu_handle *edu_handle_get(struct edu_file *file, u32 id)
{
	struct edu_handle *h;

	lockdep_assert_held(&file->lock);
	h = xa_load(&file->handles, id);
	if (!h)
		return ERR_PTR(-ENOENT);
	return h->mm == current->mm ? h : ERR_PTR(-EPERM);
}

/* Mirrored: with the lock held. */
static int edu_addr(struct edu_handle *h, unsigned long va, dma_addr_t *addr,
		    size_t *len)
{
	if (h->mirror)
		return hmm_range_map_addr(h->mirror, va, addr, len);
	if (h->umem)
		return edu_umem_addr(h, va, addr, len);
	return gup_range_map_addr(&h->pinned, va, addr, len);
}

/* Bytes of the range at @offset, as user addresses. */
static int edu_span(const struct edu_handle *h, u64 offset, u64 len,
		    unsigned long *start, unsigned long *end)
{
	size_t size = h->range.end - h->range.start;

	if (!len || offset > size || len > size - offset)
		return -EINVAL;
	*start = h->range.start + offset;
	*end = *start + len;
	return 0;
}

/* ------------------------------------------------------------------- ioctls */

static int edu_ioctl_info(struct edu_file *file, void *arg)
{
	struct gup_range_edu_info *info = arg;

	if (info->version || info->protected || info->rdma || info->interrupted)
		return -EINVAL;
	info->version = GUP_RANGE_EDU_VERSION;
	info->protected = use_dma_iommu(&file->edu->pdev->dev);
	info->rdma = IS_ENABLED(CONFIG_GUP_RANGE_EDU_RDMA);
	info->interrupted = atomic64_read(&file->edu->interrupted);
	return 0;
}

static int edu_ioctl_map(struct edu_file *file, void *arg)
{
	const u32 known = GUP_RANGE_EDU_MAP_MIRROR | GUP_RANGE_EDU_MAP_WRITE |
			  GUP_RANGE_EDU_MAP_ONLY | GUP_RANGE_EDU_MAP_RDMA;
	const u32 no_acct = GUP_RANGE_EDU_MAP_MIRROR | GUP_RANGE_EDU_MAP_RDMA;
	struct gup_range_edu_map *req = arg;
	bool rdma = req->flags & GUP_RANGE_EDU_MAP_RDMA;
	struct edu_handle *h;
	u64 end;
	int ret;

	if (req->flags & ~known || req->reserved || req->reserved2 ||
	    req->handle || (req->flags & no_acct && req->acct) ||
	    (!req->len && !rdma))
		return -EINVAL;
	if ((check_add_overflow(req->va, req->len, &end) || end > PAGE_MASK) &&
	    !rdma)
		return -EOVERFLOW;

	h = edu_handle_alloc(file->edu, req->flags, req->va, end);
	if (!h)
		return -ENOMEM;
	h->range.acct = req->acct;

	/* The id first: after it nothing can fail but the mapping itself. */
	ret = xa_alloc(&file->handles, &req->handle, NULL, xa_limit_31b,
		       GFP_KERNEL_ACCOUNT);
	if (ret)
		goto free;
	ret = edu_handle_map(h, req->granule);
	if (ret && fatal_signal_pending(current))
		atomic64_inc(&file->edu->interrupted);
	if (ret)
		goto erase;
	mmgrab(h->mm);
	xa_store(&file->handles, req->handle, h, GFP_KERNEL_ACCOUNT);
	return 0;
erase:
	xa_erase(&file->handles, req->handle);
free:
	kfree(h);
	return ret;
}

/* Nobody knows the handle. */
static void edu_undo_map(struct edu_file *file, void *arg)
{
	struct gup_range_edu_map *req = arg;

	edu_handle_release(xa_erase(&file->handles, req->handle));
}

static int edu_ioctl_unmap(struct edu_file *file, void *arg)
{
	struct gup_range_edu_unmap *req = arg;
	struct edu_handle *h;
	unsigned long start, end;
	bool whole;
	int ret;

	if (req->unmapped_start || req->unmapped_end)
		return -EINVAL;
	h = edu_handle_get(file, req->handle);
	if (IS_ERR(h))
		return PTR_ERR(h);
	ret = edu_span(h, req->offset, req->len, &start, &end);
	if (ret)
		return ret;
	whole = start == h->range.start && end == h->range.end;
	if (!whole && !(h->flags & GUP_RANGE_EDU_MAP_MIRROR))
		return -EINVAL;

	if (!whole) {
		edu_mirror_unmap(h, &start, &end);
	} else {
		xa_erase(&file->handles, req->handle);
		edu_handle_release(h);
	}
	req->unmapped_start = start;
	req->unmapped_end = end;
	return 0;
}

static int edu_ioctl_fault(struct edu_file *file, void *arg)
{
	struct gup_range_edu_fault *req = arg;
	struct edu_handle *h;
	unsigned long start, end;
	int ret;

	if (req->flags & ~GUP_RANGE_EDU_FAULT_WRITE || req->reserved ||
	    req->mapped_start || req->mapped_end)
		return -EINVAL;
	h = edu_handle_get(file, req->handle);
	if (IS_ERR(h))
		return PTR_ERR(h);
	if (!(h->flags & GUP_RANGE_EDU_MAP_MIRROR))
		return -EINVAL;
	if (req->flags & GUP_RANGE_EDU_FAULT_WRITE &&
	    !(h->flags & GUP_RANGE_EDU_MAP_WRITE))
		return -EPERM;
	ret = edu_span(h, req->offset, req->len, &start, &end);
	if (ret)
		return ret;
	ret = edu_fault(h, &start, &end,
			req->flags & GUP_RANGE_EDU_FAULT_WRITE, false);
	if (ret)
		return ret;
	req->mapped_start = start;
	req->mapped_end = end;
	return 0;
}

/*
 * Start one DMA at @start and tell in @len how far it goes: an address is good
 * for less than the range where there is no IOMMU. For a mirrored handle it is
 * started under the lock, so that an invalidation comes before or after it.
 */
static int edu_start_at(struct edu_handle *h, struct gup_range_edu_dma *req,
			size_t done, size_t *len)
{
	bool write = req->flags & GUP_RANGE_EDU_DMA_WRITE;
	bool mirror = h->flags & GUP_RANGE_EDU_MAP_MIRROR;
	unsigned long start = h->range.start + req->offset + done;
	unsigned long f_start = start, f_end = start + req->len - done;
	dma_addr_t addr;
	int ret;

	if (mirror && req->flags & GUP_RANGE_EDU_DMA_NOFAULT) {
		mutex_lock(h->lock);
	} else if (mirror) {
		ret = edu_fault(h, &f_start, &f_end, write &&
				h->flags & GUP_RANGE_EDU_MAP_WRITE, true);
		if (ret)
			return ret;
	}
	ret = edu_addr(h, start, &addr, len);
	if (!ret && mirror && h->umem && write) {
		*len = min(*len, edu_odp_writable(h, start));
		ret = *len ? 0 : -EACCES;
	}
	if (!ret) {
		*len = min(*len, req->len - done);
		edu_start(h->edu, done, addr, *len, write);
	}
	if (mirror)
		mutex_unlock(h->lock);
	return ret;
}

/*
 * Whatever the rights of the mapping are: to stop the device is the IOMMU's
 * business. Without one, writing needs a mapping for it.
 */
static int edu_dma_handle(struct edu_handle *h, struct gup_range_edu_dma *req)
{
	bool pinned = !(h->flags & GUP_RANGE_EDU_MAP_MIRROR);
	bool sync = pinned && !h->umem;
	unsigned long start, end;
	size_t len, done;
	int ret;

	ret = edu_span(h, req->offset, req->len, &start, &end);
	if (ret)
		return ret;
	if (pinned && h->flags & GUP_RANGE_EDU_MAP_ONLY)
		return -EINVAL;
	if (req->flags & GUP_RANGE_EDU_DMA_WRITE &&
	    !(h->flags & GUP_RANGE_EDU_MAP_WRITE) &&
	    !edu_protected(h))
		return -EPERM;

	if (sync)
		gup_range_map_sync_for_device(&h->pinned);
	for (done = 0; done < req->len; done += len) {
		ret = edu_start_at(h, req, done, &len);
		if (!ret)
			ret = edu_wait(h->edu);
		if (ret)
			return ret;
	}
	if (sync)
		gup_range_map_sync_for_cpu(&h->pinned);
	return 0;
}

static int edu_dma_raw(struct edu *edu, struct gup_range_edu_dma *req)
{
	/* Only what the IOMMU lets this device see, which is this driver's. */
	if (!use_dma_iommu(&edu->pdev->dev))
		return -EPERM;
	edu_start(edu, 0, req->addr, req->len,
		  req->flags & GUP_RANGE_EDU_DMA_WRITE);
	return edu_wait(edu);
}

/* The device's buffer first or last, @data on the other side of it. */
static int edu_dma(struct edu *edu, struct edu_handle *h,
		   struct gup_range_edu_dma *req, void *data)
{
	bool write = req->flags & GUP_RANGE_EDU_DMA_WRITE;
	int ret = 0;

	if (mutex_lock_interruptible(&edu->dma_lock))
		return -EINTR;
	/* A signal may have ended the wait of the one before. */
	edu_quiesce(edu);
	if (write)
		ret = edu_load(edu, data, req->len);
	if (!ret)
		ret = h ? edu_dma_handle(h, req) : edu_dma_raw(edu, req);
	if (!ret && !write) {
		ret = edu_buffer(edu, req->len, true);
		memcpy(data, edu->buf, req->len);
	}
	mutex_unlock(&edu->dma_lock);
	return ret;
}

static int edu_ioctl_dma(struct edu_file *file, void *arg)
{
	const u32 known = GUP_RANGE_EDU_DMA_WRITE | GUP_RANGE_EDU_DMA_RAW |
			  GUP_RANGE_EDU_DMA_NOFAULT | GUP_RANGE_EDU_DMA_CPU;
	struct gup_range_edu_dma *req = arg;
	void __user *buf = u64_to_user_ptr(req->buf);
	struct edu_handle *h = NULL;
	unsigned long start, end;
	int ret;

	void *data __free(kfree) = NULL;

	if (req->flags & ~known || !req->len ||
	    req->len > GUP_RANGE_EDU_DMA_MAX ||
	    (req->flags & GUP_RANGE_EDU_DMA_RAW ? req->handle || req->offset :
						   !!req->addr))
		return -EINVAL;
	if (!(req->flags & GUP_RANGE_EDU_DMA_RAW)) {
		h = edu_handle_get(file, req->handle);
		if (IS_ERR(h))
			return PTR_ERR(h);
	}
	if (req->flags & GUP_RANGE_EDU_DMA_CPU &&
	    (req->flags != GUP_RANGE_EDU_DMA_CPU || !h->umem || h->mirror ||
	     edu_span(h, req->offset, req->len, &start, &end)))
		return -EINVAL;
	data = kmalloc(req->len, GFP_KERNEL);
	if (!data)
		return -ENOMEM;
	if (req->flags & GUP_RANGE_EDU_DMA_WRITE &&
	    copy_from_user(data, buf, req->len))
		return -EFAULT;
	if (req->flags & GUP_RANGE_EDU_DMA_CPU)
		ret = edu_umem_copy(h, data, req->offset, req->len);
	else
		ret = edu_dma(file->edu, h, req, data);
	if (!ret && !(req->flags & GUP_RANGE_EDU_DMA_WRITE) &&
	    copy_to_user(buf, data, req->len))
		ret = -EFAULT;
	return ret;
}

static int edu_query_pinned(struct edu_handle *h,
			    struct gup_range_edu_query *req)
{
	struct gup_range_run run;
	struct gup_range_seg seg;
	dma_addr_t contig;
	int ret;

	gup_range_for_each_run(&h->range, &run)
		req->runs++;
	if (h->flags & GUP_RANGE_EDU_MAP_ONLY)
		return 0;
	gup_range_map_for_each_seg(&h->pinned, &seg, req->max_segment ?: SIZE_MAX)
		req->segs++;
	req->pgsz = gup_range_map_pgsz(&h->pinned, req->pgsz_bitmap);
	ret = gup_range_map_contig(&h->pinned, &contig);
	if (!ret)
		req->contig = contig;
	return ret == -ERANGE ? 0 : ret;
}

static int edu_ioctl_query(struct edu_file *file, void *arg)
{
	struct gup_range_edu_query *req = arg;
	struct gup_range_map_stats stats = {};
	struct edu_handle *h;
	unsigned long start, end;
	dma_addr_t addr;
	size_t avail;
	int ret;

	if (req->addr || req->avail || req->contig || req->runs || req->segs ||
	    req->pgsz || req->links || req->syncs || req->flushes ||
	    req->retries || req->metadata)
		return -EINVAL;
	h = edu_handle_get(file, req->handle);
	if (IS_ERR(h))
		return PTR_ERR(h);
	ret = edu_span(h, req->offset, 1, &start, &end);
	if (ret)
		return ret;

	req->addr = U64_MAX;
	req->contig = U64_MAX;
	if (h->umem && !h->mirror)
		edu_umem_query(h, req);
	else if (!h->mirror)
		ret = edu_query_pinned(h, req);
	mutex_lock(h->lock);
	if (!ret && !edu_addr(h, start, &addr, &avail)) {
		req->addr = addr;
		req->avail = avail;
	}
	if (h->mirror)
		stats = hmm_range_map_stats(h->mirror);
	else if (!h->umem)
		stats = gup_range_map_stats(&h->pinned);
	mutex_unlock(h->lock);
	req->links = stats.links;
	req->syncs = stats.syncs;
	req->flushes = stats.flushes;
	req->retries = stats.retries;
	req->metadata = stats.metadata;
	return ret;
}

/* -------------------------------------------------------------------- race */

#define EDU_RACE_LEN	64

static void edu_race_unmap(struct edu_handle *h, u32 mode, dma_addr_t addr)
{
	unsigned long start = h->range.start, end = h->range.end;

	switch (mode) {
	case GUP_RANGE_EDU_RACE_DMA_API:
		dma_unmap_phys(&h->edu->pdev->dev, addr, PAGE_SIZE,
			       DMA_BIDIRECTIONAL, 0);
		break;
	case GUP_RANGE_EDU_RACE_PINNED:
		gup_range_dma_unmap(&h->range, &h->pinned);
		break;
	case GUP_RANGE_EDU_RACE_UMEM:
		edu_rdma_unmap(h);
		break;
	case GUP_RANGE_EDU_RACE_MIRRORED:
	case GUP_RANGE_EDU_RACE_ODP:
		edu_mirror_unmap(h, &start, &end);
		break;
	}
}

static int edu_race_write(struct edu *edu, dma_addr_t addr, u8 pattern)
{
	u8 data[EDU_RACE_LEN];
	int ret;

	memset(data, pattern, sizeof(data));
	ret = edu_load(edu, data, sizeof(data));
	if (!ret)
		edu_start(edu, 0, addr, EDU_RACE_LEN, true);
	return ret;
}

/* The first write makes the IOTLB know the page, the second one races. */
static int edu_race(struct edu_handle *h, struct gup_range_edu_race *req,
		    dma_addr_t addr)
{
	struct edu *edu = h->edu;
	bool mapped = true;
	unsigned long us;
	u8 byte;
	int ret;

	ret = edu_race_write(edu, addr, 0x11);
	if (!ret)
		ret = edu_wait(edu);
	if (!ret)
		ret = edu_race_write(edu, addr, 0x22);
	if (!ret) {
		us = (EDU_DMA_MS - req->lead_ms) * 1000;
		usleep_range(us, us + 500);
		edu_race_unmap(h, req->mode, addr);
		mapped = false;
		/* Not edu_idle(): the interrupt may be late. */
		req->in_time = readq(edu->mmio + EDU_DMA_CMD) & EDU_DMA_RUN;
	}
	edu_quiesce(edu);
	if (mapped)
		edu_race_unmap(h, req->mode, addr);
	if (!ret && get_user(byte, (u8 __user *)h->range.start))
		ret = -EFAULT;
	req->changed = !ret && byte == 0x22;
	return ret;
}

static int edu_race_map(struct edu_handle *h, u32 mode, dma_addr_t *addr)
{
	struct gup_range_run run;
	size_t len;
	int ret;

	if (mode == GUP_RANGE_EDU_RACE_DMA_API) {
		run = (struct gup_range_run){};
		if (!gup_range_run_next(&h->range, &run))
			return -EFAULT;
		*addr = dma_map_phys(&h->edu->pdev->dev, run.phys, PAGE_SIZE,
				     DMA_BIDIRECTIONAL, 0);
		return dma_mapping_error(&h->edu->pdev->dev, *addr);
	}
	mutex_lock(h->lock);
	ret = edu_addr(h, h->range.start, addr, &len);
	mutex_unlock(h->lock);
	return ret;
}

static int edu_ioctl_race(struct edu_file *file, void *arg)
{
	static const unsigned int flags[] = {
		[GUP_RANGE_EDU_RACE_DMA_API] = GUP_RANGE_EDU_MAP_ONLY,
		[GUP_RANGE_EDU_RACE_PINNED] = 0,
		[GUP_RANGE_EDU_RACE_MIRRORED] = GUP_RANGE_EDU_MAP_MIRROR,
		[GUP_RANGE_EDU_RACE_UMEM] = GUP_RANGE_EDU_MAP_RDMA,
		[GUP_RANGE_EDU_RACE_ODP] = GUP_RANGE_EDU_MAP_RDMA |
					   GUP_RANGE_EDU_MAP_MIRROR,
	};
	struct gup_range_edu_race *req = arg;
	struct edu *edu = file->edu;
	struct edu_handle *h;
	bool released;
	dma_addr_t addr;
	int ret;

	if (req->mode >= ARRAY_SIZE(flags) || req->in_time || req->changed ||
	    req->reserved || !req->lead_ms || req->lead_ms >= EDU_DMA_MS ||
	    !PAGE_ALIGNED(req->va))
		return -EINVAL;
	if (!use_dma_iommu(&edu->pdev->dev))
		return -EPERM;
	h = edu_handle_alloc(edu, flags[req->mode] | GUP_RANGE_EDU_MAP_WRITE,
			     req->va, req->va + PAGE_SIZE);
	if (!h)
		return -ENOMEM;
	ret = edu_handle_map(h, PAGE_SIZE);
	if (ret)
		goto free;

	released = req->mode == GUP_RANGE_EDU_RACE_PINNED ||
		   req->mode == GUP_RANGE_EDU_RACE_UMEM;
	mutex_lock(&edu->dma_lock);
	edu_quiesce(edu);
	ret = edu_race_map(h, req->mode, &addr);
	if (!ret)
		ret = edu_race(h, req, addr);
	else if (released)
		edu_race_unmap(h, req->mode, 0);
	mutex_unlock(&edu->dma_lock);

	/* edu_race() unmapped the pinned one, or never got to. */
	if (released)
		goto free;
	mmgrab(h->mm);
	edu_handle_release(h);
	return ret;
free:
	kfree(h);
	return ret;
}

/* --------------------------------------------------------------------- mask */

static int edu_ioctl_mask(struct edu_file *file, void *arg)
{
	struct gup_range_edu_mask *req = arg;
	int ret;

	if (req->reserved)
		return -EINVAL;
	ret = dma_set_mask(&file->edu->pdev->dev, req->mask);
	if (!ret)
		file->masked = true;
	return ret;
}

static void edu_unmask(struct edu *edu)
{
	/* Cannot fail: probe did the same. */
	dma_set_mask(&edu->pdev->dev, DMA_BIT_MASK(64));
}

/* ------------------------------------------------------------------ provoke */

static int edu_provoke_warn(struct edu *edu)
{
	WARN(1, "gup_range_edu: provoked\n");
	return 0;
}

static int edu_provoke_lockdep(struct edu *edu)
{
	static DEFINE_MUTEX(a);
	static DEFINE_MUTEX(b);

	mutex_lock(&a);
	mutex_lock(&b);
	mutex_unlock(&b);
	mutex_unlock(&a);
	mutex_lock(&b);
	mutex_lock(&a);
	mutex_unlock(&a);
	mutex_unlock(&b);
	return 0;
}

static int edu_provoke_leak(struct edu *edu)
{
	return kmalloc(1234, GFP_KERNEL) ? 0 : -ENOMEM;
}

static int edu_provoke_stale(struct edu *edu)
{
	struct page *page = alloc_page(GFP_KERNEL);
	dma_addr_t addr;

	if (!page)
		return -ENOMEM;
	addr = dma_map_page(&edu->pdev->dev, page, 0, PAGE_SIZE,
			    DMA_BIDIRECTIONAL);
	__free_page(page);
	return dma_mapping_error(&edu->pdev->dev, addr);
}

static int edu_provoke_hang(struct edu *edu)
{
	for (;;)
		schedule_timeout_uninterruptible(MAX_SCHEDULE_TIMEOUT);
	return 0;
}

static int edu_provoke_uaf(struct edu *edu)
{
	u8 *p = kmalloc(64, GFP_KERNEL), *freed = p;

	if (!p)
		return -ENOMEM;
	/* For the compiler it is another one. */
	OPTIMIZER_HIDE_VAR(freed);
	kfree(p);
	return READ_ONCE(freed[8]) > 255;
}

static int edu_provoke_atomic(struct edu *edu)
{
	preempt_disable();
	might_sleep();
	preempt_enable();
	return 0;
}

/* As a device does it: KASAN does not see the write. */
static int edu_provoke_poison(struct edu *edu)
{
	struct page *page = alloc_page(GFP_KERNEL), *again;
	u8 *p;

	if (!page)
		return -ENOMEM;
	p = page_address(page);
	/* What a CPU freed last it takes first, and looks at it then. */
	preempt_disable();
	__free_page(page);
	kasan_disable_current();
	WRITE_ONCE(p[8], 0x11);
	WRITE_ONCE(p[16], 0x22);
	kasan_enable_current();
	again = alloc_page(GFP_ATOMIC);
	preempt_enable();
	if (again)
		__free_page(again);
	return again == page ? 0 : -EAGAIN;
}

/* Unmap with another direction. */
static int edu_provoke_dma_debug(struct edu *edu)
{
	struct page *page = alloc_page(GFP_KERNEL);
	struct device *dev = &edu->pdev->dev;
	dma_addr_t addr;

	if (!page)
		return -ENOMEM;
	addr = dma_map_page(dev, page, 0, PAGE_SIZE, DMA_TO_DEVICE);
	if (!dma_mapping_error(dev, addr))
		dma_unmap_page(dev, addr, PAGE_SIZE, DMA_BIDIRECTIONAL);
	__free_page(page);
	return 0;
}

static const struct edu_provocation {
	const char	*name;
	int		(*fn)(struct edu *edu);
} edu_provocations[] = {
	[GUP_RANGE_EDU_PROVOKE_WARN]	  = { "warn",	   edu_provoke_warn },
	[GUP_RANGE_EDU_PROVOKE_LOCKDEP]	  = { "lockdep",   edu_provoke_lockdep },
	[GUP_RANGE_EDU_PROVOKE_LEAK]	  = { "leak",	   edu_provoke_leak },
	[GUP_RANGE_EDU_PROVOKE_STALE]	  = { "stale",	   edu_provoke_stale },
	[GUP_RANGE_EDU_PROVOKE_HANG]	  = { "hang",	   edu_provoke_hang },
	[GUP_RANGE_EDU_PROVOKE_UAF]	  = { "uaf",	   edu_provoke_uaf },
	[GUP_RANGE_EDU_PROVOKE_ATOMIC]	  = { "atomic",	   edu_provoke_atomic },
	[GUP_RANGE_EDU_PROVOKE_POISON]	  = { "poison",	   edu_provoke_poison },
	[GUP_RANGE_EDU_PROVOKE_DMA_DEBUG] = { "dma-debug", edu_provoke_dma_debug },
};

static int edu_ioctl_provoke(struct edu_file *file, void *arg)
{
	struct gup_range_edu_provoke *req = arg;

	if (req->what >= ARRAY_SIZE(edu_provocations))
		return -EINVAL;
	/* Whose splat it is that comes next */
	pr_info("gup_range_edu: provoke: %s\n", edu_provocations[req->what].name);
	return edu_provocations[req->what].fn(file->edu);
}

/* -------------------------------------------------------------------- files */

static const struct edu_ioctl {
	unsigned int	cmd;
	int		(*fn)(struct edu_file *file, void *arg);
	void		(*undo)(struct edu_file *file, void *arg);
} edu_ioctls[] = {
	{ GUP_RANGE_EDU_INFO,	 edu_ioctl_info },
	{ GUP_RANGE_EDU_MAP,	 edu_ioctl_map, edu_undo_map },
	{ GUP_RANGE_EDU_UNMAP,	 edu_ioctl_unmap },
	{ GUP_RANGE_EDU_FAULT,	 edu_ioctl_fault },
	{ GUP_RANGE_EDU_DMA,	 edu_ioctl_dma },
	{ GUP_RANGE_EDU_QUERY,	 edu_ioctl_query },
	{ GUP_RANGE_EDU_MASK,	 edu_ioctl_mask },
	{ GUP_RANGE_EDU_RACE,	 edu_ioctl_race },
	{ GUP_RANGE_EDU_PROVOKE, edu_ioctl_provoke },
};

static long edu_call(struct edu_file *file, const struct edu_ioctl *ioctl,
		     void __user *uarg)
{
	size_t size = _IOC_SIZE(ioctl->cmd);
	u8 arg[sizeof(struct gup_range_edu_query)] __aligned(8) = {};
	u32 usize;
	int ret;

	BUILD_BUG_ON(sizeof(struct gup_range_edu_dma) > sizeof(arg));
	BUILD_BUG_ON(sizeof(struct gup_range_edu_map) > sizeof(arg));
	if (get_user(usize, (u32 __user *)uarg))
		return -EFAULT;
	if (usize < size || usize > PAGE_SIZE)
		return -EINVAL;
	ret = copy_struct_from_user(arg, size, uarg, usize);
	if (ret)
		return ret;
	ret = ioctl->fn(file, arg);
	if (ret || !copy_to_user(uarg, arg, size))
		return ret;
	if (ioctl->undo)
		ioctl->undo(file, arg);
	return -EFAULT;
}

static long edu_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct edu_file *file = filp->private_data;
	struct edu *edu = file->edu;
	long ret = -ENOTTY;
	int i;

	if (down_read_killable(&edu->gone_sem))
		return -EINTR;
	if (mutex_lock_interruptible(&file->lock)) {
		up_read(&edu->gone_sem);
		return -EINTR;
	}
	for (i = 0; i < ARRAY_SIZE(edu_ioctls); i++) {
		if (edu_ioctls[i].cmd != cmd)
			continue;
		ret = edu->gone ? -ENODEV :
		      edu_call(file, &edu_ioctls[i], (void __user *)arg);
	}
	mutex_unlock(&file->lock);
	up_read(&edu->gone_sem);
	return ret;
}

static void edu_free(struct kref *ref)
{
	struct edu *edu = container_of(ref, struct edu, ref);

	kfree(edu->misc.name);
	kfree(edu);
}

static int edu_open(struct inode *inode, struct file *filp)
{
	struct edu *edu = container_of(filp->private_data, struct edu, misc);
	struct edu_file *file = kzalloc_obj(*file);

	if (!file)
		return -ENOMEM;
	file->edu = edu;
	mutex_init(&file->lock);
	xa_init_flags(&file->handles, XA_FLAGS_ALLOC1);
	kref_get(&edu->ref);
	scoped_guard(mutex, &edu->files_lock)
		list_add(&file->node, &edu->files);
	filp->private_data = file;
	return 0;
}

static void edu_file_revoke(struct edu_file *file)
{
	struct edu_handle *h;
	unsigned long id;

	xa_for_each(&file->handles, id, h) {
		xa_erase(&file->handles, id);
		edu_handle_release(h);
	}
	xa_destroy(&file->handles);
}

static int edu_release(struct inode *inode, struct file *filp)
{
	struct edu_file *file = filp->private_data;
	struct edu *edu = file->edu;

	down_read(&edu->gone_sem);
	scoped_guard(mutex, &edu->files_lock)
		list_del(&file->node);
	edu_file_revoke(file);
	if (file->masked && !edu->gone)
		edu_unmask(edu);
	up_read(&edu->gone_sem);
	kref_put(&edu->ref, edu_free);
	kfree(file);
	return 0;
}

static const struct file_operations edu_fops = {
	.owner		= THIS_MODULE,
	.open		= edu_open,
	.release	= edu_release,
	.unlocked_ioctl	= edu_ioctl,
};

/* ------------------------------------------------------------------- device */

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device *dev = &pdev->dev;
	struct edu *edu;
	int ret;

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	pci_set_master(pdev);

	edu = kzalloc_obj(*edu);
	if (!edu)
		return -ENOMEM;
	kref_init(&edu->ref);
	edu->pdev = pdev;
	mutex_init(&edu->dma_lock);
	mutex_init(&edu->files_lock);
	init_rwsem(&edu->gone_sem);
	init_waitqueue_head(&edu->idle);
	INIT_LIST_HEAD(&edu->files);

	edu->mmio = pcim_iomap_region(pdev, 0, KBUILD_MODNAME);
	if (IS_ERR(edu->mmio)) {
		ret = PTR_ERR(edu->mmio);
		goto put;
	}
	if ((readl(edu->mmio + EDU_ID) & 0xff) != 0xed) {
		ret = -ENODEV;
		goto put;
	}
	ret = -ENOMEM;
	edu->buf = dma_alloc_coherent(dev, PAGE_SIZE, &edu->buf_addr,
				      GFP_KERNEL);
	if (!edu->buf)
		goto put;
	ret = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_ALL_TYPES);
	if (ret < 0)
		goto free_buf;
	ret = pci_request_irq(pdev, 0, edu_irq, NULL, edu, KBUILD_MODNAME);
	if (ret)
		goto free_vectors;

	ret = edu_rdma_init(edu);
	if (ret)
		goto free_irq;
	edu->misc.name = kasprintf(GFP_KERNEL, "gup_range_edu");
	edu->misc.minor = MISC_DYNAMIC_MINOR;
	edu->misc.fops = &edu_fops;
	edu->misc.mode = 0600;
	ret = edu->misc.name ? misc_register(&edu->misc) : -ENOMEM;
	if (ret)
		goto destroy_rdma;
	pci_set_drvdata(pdev, edu);
	return 0;
destroy_rdma:
	edu_rdma_destroy(edu);
free_irq:
	pci_free_irq(pdev, 0, edu);
free_vectors:
	pci_free_irq_vectors(pdev);
free_buf:
	dma_free_coherent(dev, PAGE_SIZE, edu->buf, edu->buf_addr);
put:
	kref_put(&edu->ref, edu_free);
	return ret;
}

/* Files stay open; nothing of theirs stays mapped. */
static void edu_remove(struct pci_dev *pdev)
{
	struct edu *edu = pci_get_drvdata(pdev);
	struct edu_file *file;

	misc_deregister(&edu->misc);
	down_write(&edu->gone_sem);
	edu->gone = true;
	edu_quiesce(edu);
	list_for_each_entry(file, &edu->files, node)
		edu_file_revoke(file);
	edu_rdma_destroy(edu);
	pci_free_irq(pdev, 0, edu);
	pci_free_irq_vectors(pdev);
	dma_free_coherent(&pdev->dev, PAGE_SIZE, edu->buf, edu->buf_addr);
	up_write(&edu->gone_sem);
	kref_put(&edu->ref, edu_free);
}

static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(EDU_VENDOR, EDU_DEVICE) },
	{ }
};
MODULE_DEVICE_TABLE(pci, edu_ids);

static struct pci_driver edu_driver = {
	.name		= KBUILD_MODNAME,
	.id_table	= edu_ids,
	.probe		= edu_probe,
	.remove		= edu_remove,
};
module_pci_driver(edu_driver);

MODULE_DESCRIPTION("Test driver for gup_range on QEMU's edu device");
MODULE_LICENSE("GPL");
